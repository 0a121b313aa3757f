//! The mediated devices that are to be made, kept as mdevctl keeps them: a file each, in a directory of their parent's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;
use vdpa_vfio::sysfs::{Fact, Tree, excerpt};

use crate::{Broken, Definition, MdevError};

/// Bytes of a definition.
const FILE: usize = 1 << 20;

/// mdevctl's own, beside the parents.
const SCRIPTS: &str = "scripts.d";

/// All definitions of a system.
///
/// A file is replaced as a whole or not at all, and is on the disk when a call returns. One that is broken stays as it is:
/// it is named, with its line, and everything else goes on.
#[derive(Clone, Debug)]
pub struct Definitions {
    home: PathBuf,
    /// The copy that they belong to: its links may lead out of it.
    copy: Option<PathBuf>,
}

/// What is defined.
#[derive(Debug, Default)]
pub struct Defined {
    /// The definitions, by parent and UUID.
    pub whole: Vec<Definition>,
    /// What could not be read.
    pub broken: Vec<Broken>,
}

impl Definitions {
    /// Those of a system: `/etc/mdevctl.d` below its root.
    pub fn of_system(root: &Path) -> Self {
        let copied = root != Path::new("/");
        Self {
            home: root.join("etc/mdevctl.d"),
            copy: copied.then(|| root.to_owned()),
        }
    }

    /// Those in another directory.
    pub fn at(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            copy: None,
        }
    }

    /// The directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// All of them.
    ///
    /// # Errors
    /// [`MdevError::Definitions`], when the directory cannot be looked at.
    pub fn all(&self) -> Result<Defined, MdevError> {
        self.inside(&self.home)?;
        let tree = Tree::new(&self.home);
        let mut defined = Defined::default();
        for parent in self.names(&tree, "")? {
            if parent == SCRIPTS || !self.home.join(&parent).is_dir() {
                continue;
            }
            for name in self.names(&tree, &parent)? {
                let path = self.home.join(&parent).join(&name);
                // Other tools keep what they like there, as mdevctl does with what it writes.
                let Ok(uuid) = Uuid::try_parse(&name) else {
                    continue;
                };
                let read = match uuid.to_string() == name {
                    true => self.read(&tree, &parent, uuid),
                    false => Err(broken(
                        &path,
                        None,
                        &format!("a definition of this device is called {uuid}: rename it"),
                    )),
                };
                match read {
                    Ok(definition) => defined.whole.push(definition),
                    Err(error) => defined.broken.push(error),
                }
            }
        }
        Ok(defined)
    }

    /// The definition of a device.
    ///
    /// * `parent`: which one, where several parents have one
    ///
    /// # Errors
    /// [`MdevError::NotDefined`], [`MdevError::SeveralDefinitions`], [`MdevError::Broken`] and [`MdevError::Definitions`].
    pub fn of(&self, uuid: Uuid, parent: Option<&str>) -> Result<Definition, MdevError> {
        self.inside(&self.home)?;
        let tree = Tree::new(&self.home);
        let has = |name: &String| {
            parent.is_none_or(|parent| parent == name)
                && name != SCRIPTS
                && fs::symlink_metadata(self.path(name, uuid)).is_ok()
        };
        let mut parents = self.names(&tree, "")?;
        parents.retain(has);
        match &parents[..] {
            [parent] => Ok(self.read(&tree, parent, uuid)?),
            [] => Err(MdevError::NotDefined {
                uuid,
                parent: parent.map(excerpt),
            }),
            _ => Err(MdevError::SeveralDefinitions { uuid, parents }),
        }
    }

    /// Keeps a new definition.
    ///
    /// # Errors
    /// [`MdevError::Defined`], [`MdevError::Store`] and [`MdevError::ParentName`]. Nothing is there then that was not before.
    pub fn define(&self, definition: &Definition) -> Result<(), MdevError> {
        let path = self.path(&definition.parent, definition.uuid);
        let defined = || MdevError::Defined {
            uuid: definition.uuid,
            path: path.display().to_string(),
        };
        if fs::symlink_metadata(&path).is_ok() {
            return Err(defined());
        }
        self.store(definition, |new, path| {
            // Unlike a rename, this replaces nothing that came meanwhile.
            let linked = fs::hard_link(new, path);
            fs::remove_file(new)?;
            linked
        })
        .map_err(|error| match error {
            MdevError::Store { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
                defined()
            }
            error => error,
        })
    }

    /// Keeps a definition in place of the one that there is.
    ///
    /// # Errors
    /// [`MdevError::NotDefined`], [`MdevError::Broken`] and [`MdevError::Store`]. What was there stays then.
    pub fn change(&self, definition: &Definition) -> Result<(), MdevError> {
        self.of(definition.uuid, Some(&definition.parent))?;
        self.store(definition, |new, path| fs::rename(new, path))
    }

    /// Forgets a definition. What is made of it already stays.
    ///
    /// # Errors
    /// As for [`of`](Self::of): a broken one is not forgotten; and [`MdevError::Store`].
    pub fn undefine(&self, uuid: Uuid, parent: Option<&str>) -> Result<Definition, MdevError> {
        let definition = self.of(uuid, parent)?;
        self.inside(&self.home.join(&definition.parent))?;
        let path = self.path(&definition.parent, uuid);
        let remove = || {
            fs::remove_file(&path)?;
            sync(path.parent())
        };
        remove().map_err(|source| stored(&path, source))?;
        Ok(definition)
    }

    fn path(&self, parent: &str, uuid: Uuid) -> PathBuf {
        self.home.join(parent).join(uuid.to_string())
    }

    fn names(&self, tree: &Tree, path: &str) -> Result<Vec<String>, MdevError> {
        match tree.names(path) {
            Fact::Is(names) => Ok(names),
            Fact::Absent => Ok(Vec::new()),
            Fact::Unknown(why) => Err(MdevError::Definitions {
                path: tree.path(path).display().to_string(),
                why,
            }),
        }
    }

    fn read(&self, tree: &Tree, parent: &str, uuid: Uuid) -> Result<Definition, Broken> {
        let path = self.path(parent, uuid);
        let bytes = match tree.bytes(format!("{parent}/{uuid}"), FILE) {
            Fact::Is(bytes) => bytes,
            Fact::Absent => return Err(broken(&path, None, "it leads to no file")),
            Fact::Unknown(why) => return Err(broken(&path, None, &why)),
        };
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let before = error.as_bytes().iter().take(good);
            let line = before.filter(|byte| **byte == b'\n').count();
            broken(&path, Some(line.saturating_add(1)), "it is no text")
        })?;
        Definition::parsed(&text, uuid, parent).map_err(|error| {
            let why = error.to_string();
            // It says the line once more.
            let why = why.rsplit_once(" at line ").map_or(&*why, |(why, _)| why);
            broken(&path, Some(error.line()), why)
        })
    }

    /// Writes a definition beside where it belongs, and has it put there.
    fn store(
        &self,
        definition: &Definition,
        put: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> Result<(), MdevError> {
        if !is_name(&definition.parent) {
            return Err(MdevError::ParentName {
                parent: excerpt(&definition.parent),
            });
        }
        let folder = self.home.join(&definition.parent);
        self.inside(&folder)?;
        let path = self.path(&definition.parent, definition.uuid);
        let write = || {
            let text = definition.text().map_err(io::Error::from)?;
            make(&folder)?;
            // No UUID: whoever lists definitions passes over it.
            let new = folder.join(format!(".{}.{}", definition.uuid, std::process::id()));
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o644);
            // What a process of the same number left may be a definition's second name: it is not written to.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let written = options.open(&new).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            });
            let done = written.and_then(|()| put(&new, &path));
            if done.is_err() {
                // What remains is no definition; that it could not be put is what matters.
                let _ = fs::remove_file(&new);
            }
            done?;
            sync(Some(&folder))
        };
        write().map_err(|source| stored(&path, source))
    }

    /// Nothing, if a path is where it belongs.
    fn inside(&self, path: &Path) -> Result<(), MdevError> {
        let Some(copy) = &self.copy else {
            return Ok(());
        };
        let there = |path: &&Path| fs::symlink_metadata(path).is_ok();
        let inside = || {
            let copy = copy.canonicalize()?;
            match path.ancestors().find(there) {
                // A link to nothing is an error here.
                Some(above) if !above.canonicalize()?.starts_with(copy) => {
                    Err(io::Error::other("a link leads out of the copy"))
                }
                _ => Ok(()),
            }
        };
        inside().map_err(|source| stored(path, source))
    }
}

/// Whether a text can be the name of a parent, and of nothing else: it becomes part of a path.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | ".." | SCRIPTS) && !name.contains(['/', '\0'])
}

/// Makes a directory, and writes out the names that lead to it.
fn make(folder: &Path) -> io::Result<()> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let made: Vec<&Path> = folder.ancestors().take_while(missing).collect();
    fs::create_dir_all(folder)?;
    made.iter().try_for_each(|path| sync(path.parent()))
}

/// The names in a directory are written out.
fn sync(folder: Option<&Path>) -> io::Result<()> {
    match folder {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn broken(path: &Path, line: Option<usize>, why: &str) -> Broken {
    Broken {
        path: path.display().to_string(),
        line,
        why: why.to_owned(),
    }
}

fn stored(path: &Path, source: io::Error) -> MdevError {
    MdevError::Store {
        path: path.display().to_string(),
        source,
    }
}
