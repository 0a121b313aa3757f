//! The mediated devices that are to be made, kept as mdevctl keeps them: a file each, in a directory of their parent's.

mod keep;

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
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
/// A file is replaced as a whole or not at all, and is on the disk when a call returns well. One that is broken stays as it
/// is: it is named, with its line, and everything else goes on; so does a parent's directory that cannot be listed.
#[derive(Clone, Debug)]
pub struct Definitions {
    home: PathBuf,
    /// The copy that they belong to: its links may lead out of it.
    copy: Option<PathBuf>,
    /// The root of the system that they belong to, if they do.
    system: Option<PathBuf>,
}

/// What is defined.
#[derive(Debug, Default)]
pub struct Defined {
    /// The definitions, by parent and UUID.
    pub whole: Vec<Definition>,
    /// What could not be read: files, and whole directories of parents.
    pub broken: Vec<Broken>,
}

impl Definitions {
    /// Those of a system: `/etc/mdevctl.d` below its root.
    pub fn of_system(root: &Path) -> Self {
        let copied = root != Path::new("/");
        Self {
            home: root.join("etc/mdevctl.d"),
            copy: copied.then(|| root.to_owned()),
            system: Some(root.to_owned()),
        }
    }

    /// Those in another directory.
    pub fn at(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            copy: None,
            system: None,
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
        for parent in self.parents(&tree)? {
            let names = match tree.names(&parent) {
                Fact::Is(names) => names,
                // It went away since.
                Fact::Absent => continue,
                Fact::Unknown(why) => {
                    let path = self.home.join(&parent);
                    defined.broken.push(broken(&path, None, &why));
                    continue;
                }
            };
            for name in names {
                let path = self.home.join(&parent).join(&name);
                // Other tools keep what they like there, as mdevctl does with what it writes.
                let Ok(uuid) = Uuid::try_parse(&name) else {
                    continue;
                };
                let read = match uuid.to_string() == name {
                    true => self.read(&tree, &parent, uuid),
                    false => Err(misnamed(&path, uuid)),
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
        let (mut parents, mut in_doubt) = (Vec::new(), None);
        for name in self.parents(&tree)? {
            if parent.is_some_and(|parent| parent != name) {
                continue;
            }
            match self.has(&tree, &name, uuid) {
                Ok(true) => parents.push(name),
                Ok(false) => {}
                Err(error) => in_doubt = Some(error),
            }
        }
        match (&parents[..], in_doubt) {
            ([parent], _) => Ok(self.read(&tree, parent, uuid)?),
            ([], Some(error)) => Err(error.into()),
            ([], None) => Err(MdevError::NotDefined {
                uuid,
                parent: parent.map(excerpt),
            }),
            _ => Err(MdevError::SeveralDefinitions { uuid, parents }),
        }
    }

    /// Keeps a new definition.
    ///
    /// # Errors
    /// [`MdevError::Defined`], [`MdevError::Broken`] for one that is there and cannot be read, or whose file has another form
    /// of the UUID for a name, [`MdevError::Store`], [`MdevError::ParentName`] and [`MdevError::KindName`]: nothing is there
    /// then that was not before.
    /// [`MdevError::NotOnDisk`]: it is there.
    pub fn define(&self, definition: &Definition) -> Result<(), MdevError> {
        let (parent, uuid) = (&definition.parent, definition.uuid);
        let path = self.path(parent, uuid);
        let defined = || MdevError::Defined {
            uuid,
            path: path.display().to_string(),
        };
        self.belongs(parent)?;
        if !is_name(&definition.kind) {
            let kind = excerpt(&definition.kind);
            return Err(MdevError::KindName { kind });
        }
        let tree = Tree::new(&self.home);
        if self.has(&tree, parent, uuid)? {
            // One that is broken cannot be forgotten either.
            self.read(&tree, parent, uuid)?;
            return Err(defined());
        }
        let stored = self.store(definition, None, keep::put_new);
        stored.map_err(|error| match error {
            MdevError::Store { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
                defined()
            }
            error => error,
        })
    }

    /// Keeps a definition in place of the one that there is. Its file has the owner and the permissions of the one that it
    /// replaces, and none of its other attributes, such as access control lists.
    ///
    /// All of it is written: keys that nobody here knows are those of the definition that was read, and one from
    /// [`Definition::new`] has none.
    ///
    /// # Errors
    /// [`MdevError::NotDefined`], [`MdevError::Broken`] and [`MdevError::Store`]: what was there stays then.
    /// [`MdevError::NotOnDisk`]: it is replaced.
    pub fn change(&self, definition: &Definition) -> Result<(), MdevError> {
        self.of(definition.uuid, Some(&definition.parent))?;
        self.belongs(&definition.parent)?;
        let path = self.path(&definition.parent, definition.uuid);
        let like = fs::metadata(&path).map_err(|source| stored(&path, source))?;
        self.store(definition, Some(&like), |new, path| fs::rename(new, path))
    }

    /// Forgets a definition. What is made of it already stays.
    ///
    /// # Errors
    /// As for [`of`](Self::of): a broken one is not forgotten; and [`MdevError::Store`]. [`MdevError::NotOnDisk`]: it is
    /// forgotten.
    pub fn undefine(&self, uuid: Uuid, parent: Option<&str>) -> Result<Definition, MdevError> {
        let definition = self.of(uuid, parent)?;
        self.belongs(&definition.parent)?;
        let path = self.path(&definition.parent, uuid);
        fs::remove_file(&path).map_err(|source| stored(&path, source))?;
        keep::sync(path.parent()).map_err(|source| not_on_disk(&path, source))?;
        Ok(definition)
    }

    /// mdevctl's scripts for definitions and devices: it asks those among `callouts` before and after it changes something,
    /// and tells those among `notifiers` afterwards. Nothing here runs one.
    ///
    /// # Spec
    /// `mdevctl(8)`, "Callouts": those of the system are in `/usr/lib/mdevctl/scripts.d` as well.
    pub fn scripts(&self) -> Vec<PathBuf> {
        let system = self.system.iter();
        let system = system.map(|root| root.join("usr/lib/mdevctl").join(SCRIPTS));
        let homes = [self.home.join(SCRIPTS)].into_iter().chain(system);
        let folders = homes.flat_map(|home| [home.join("callouts"), home.join("notifiers")]);
        let scripts = folders.flat_map(|folder| {
            let names = Tree::new(&folder).names("").known().cloned();
            let names = names.into_iter().flatten();
            names.map(move |name| folder.join(name))
        });
        scripts.filter(|script| script.is_file()).collect()
    }

    fn path(&self, parent: &str, uuid: Uuid) -> PathBuf {
        self.home.join(parent).join(uuid.to_string())
    }

    /// The parents that have a directory.
    fn parents(&self, tree: &Tree) -> Result<Vec<String>, MdevError> {
        let mut parents = match tree.names("") {
            Fact::Is(names) => names,
            Fact::Absent => Vec::new(),
            Fact::Unknown(why) => {
                return Err(MdevError::Definitions {
                    path: self.home.display().to_string(),
                    why,
                });
            }
        };
        parents.retain(|name| name != SCRIPTS && self.home.join(name).is_dir());
        Ok(parents)
    }

    /// Whether a parent has a definition of a device. One whose file has another form of the UUID for a name is one to
    /// mdevctl too: it is broken.
    fn has(&self, tree: &Tree, parent: &str, uuid: Uuid) -> Result<bool, Broken> {
        let named = uuid.to_string();
        match tree.names(parent) {
            Fact::Is(names) => {
                let other = |name: &&String| **name != named && Uuid::try_parse(name) == Ok(uuid);
                match names.iter().find(other) {
                    Some(name) => Err(misnamed(&self.home.join(parent).join(name), uuid)),
                    None => Ok(names.contains(&named)),
                }
            }
            Fact::Absent => Ok(false),
            // Whoever may not list a directory may look for a name in it all the same.
            Fact::Unknown(_) if fs::symlink_metadata(self.path(parent, uuid)).is_ok() => Ok(true),
            Fact::Unknown(why) => Err(broken(&self.home.join(parent), None, &why)),
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
            broken(&path, Some(error.line()), &short(why))
        })
    }

    /// Writes a definition beside where it belongs, and has it put there.
    ///
    /// * `like`: what it replaces
    fn store(
        &self,
        definition: &Definition,
        like: Option<&Metadata>,
        put: fn(&Path, &Path) -> io::Result<()>,
    ) -> Result<(), MdevError> {
        let path = self.path(&definition.parent, definition.uuid);
        let failed = |source| stored(&path, source);
        let text = definition.text().map_err(|e| failed(e.into()))?;
        let folder = self.home.join(&definition.parent);
        let made = keep::make(&folder).map_err(failed)?;
        // No UUID: whoever lists definitions passes over it. No other thread or process has the same.
        let random = Uuid::new_v4().simple();
        let new = folder.join(format!(".{}.{random}", definition.uuid));
        let done = keep::write(&new, &text, like).and_then(|()| put(&new, &path));
        if let Err(source) = done {
            // What remains is no definition; that it could not be put is what matters.
            let _ = fs::remove_file(&new);
            keep::take_away(&made);
            return Err(failed(source));
        }
        keep::sync(Some(&folder)).map_err(|source| not_on_disk(&path, source))
    }

    /// Nothing, if a text can be the name of a parent, and its directory is where it belongs.
    fn belongs(&self, parent: &str) -> Result<(), MdevError> {
        match is_name(parent) {
            true => self.inside(&self.home.join(parent)),
            false => Err(MdevError::ParentName {
                parent: excerpt(parent),
            }),
        }
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

/// Whether a text can be the name of a parent, or of a type, and of nothing else: it becomes part of a path.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | ".." | SCRIPTS) && !name.contains(['/', '\0'])
}

fn broken(path: &Path, line: Option<usize>, why: &str) -> Broken {
    Broken {
        path: path.display().to_string(),
        line,
        why: why.to_owned(),
    }
}

/// A reason that may repeat all that a file has: its beginning and its end, which says what was expected.
fn short(why: &str) -> String {
    const PART: usize = 120;
    let count = why.chars().count();
    let start = why.chars().take(PART);
    match count.saturating_sub(PART) {
        more if more > PART => {
            let end = why.chars().skip(count.saturating_sub(PART));
            start.chain(" ... ".chars()).chain(end).collect()
        }
        _ => why.to_owned(),
    }
}

fn misnamed(path: &Path, uuid: Uuid) -> Broken {
    let why = format!("a definition of this device is called {uuid}: rename it");
    broken(path, None, &why)
}

fn not_on_disk(path: &Path, source: io::Error) -> MdevError {
    MdevError::NotOnDisk {
        path: path.display().to_string(),
        source,
    }
}

fn stored(path: &Path, source: io::Error) -> MdevError {
    MdevError::Store {
        path: path.display().to_string(),
        source,
    }
}
