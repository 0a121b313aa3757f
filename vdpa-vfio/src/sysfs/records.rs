//! What was changed, kept where the end of this process does not lose it.
//!
//! A function that is changed has a file with what it was like before, whole before the first change, and there until it
//! is like that again. Where the place is on a disk, it is written out to it; `/run` is memory, as a rule, which a boot
//! clears together with the bindings. Whoever changes something is alone, wherever others keep their records: the places
//! are locked each by itself, and the system by a file of the kernel's that all of them write.
//!
//! ```text
//!   vdpactl vfio 1
//!   function 0000:01:00.0
//!   numbers 1af4:1041
//!   driver virtio-pci          no such line: it had none
//!   only vfio-pci              no such line: any driver could have it
//!   vfs 0 1                    how many virtual functions it had, and whether drivers took them; only if that was changed
//!   state                      stands for the driver and only lines; only if those were changed
//!   end
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::address::excerpt;
use super::tree::Tree;
use super::{Address, Fact, SysfsError};

/// The first line of a record.
const HEAD: &str = "vdpactl vfio 1";

/// The kernel's file that every change of a driver goes through in the end, and that only root can open.
const PROBE: &str = "/sys/bus/pci/drivers_probe";

/// Bytes of a record.
const RECORD: usize = 4096;

/// Who had a function, and who could have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) driver: Option<String>,
    pub(super) only: Option<String>,
}

/// How many virtual functions there were, and whether drivers took new ones at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VirtualState {
    pub(super) made: u16,
    pub(super) autoprobe: Option<u8>,
}

/// What a function was like before it was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) address: Address,
    /// Vendor and device: another card may be in its place by now.
    pub(super) numbers: (u16, u16),
    pub(super) state: Option<State>,
    pub(super) virtuals: Option<VirtualState>,
}

impl Record {
    /// Whether nothing was changed.
    fn is_empty(&self) -> bool {
        self.state.is_none() && self.virtuals.is_none()
    }

    fn text(&self) -> String {
        let (vendor, device) = self.numbers;
        let mut lines = vec![
            HEAD.to_owned(),
            format!("function {}", self.address),
            format!("numbers {vendor:04x}:{device:04x}"),
        ];
        if let Some(State { driver, only }) = &self.state {
            lines.push("state".to_owned());
            lines.extend(driver.iter().map(|driver| format!("driver {driver}")));
            lines.extend(only.iter().map(|only| format!("only {only}")));
        }
        if let Some(VirtualState { made, autoprobe }) = self.virtuals {
            let autoprobe = autoprobe.map_or("none".to_owned(), |on| on.to_string());
            lines.push(format!("vfs {made} {autoprobe}"));
        }
        lines.push("end\n".to_owned());
        lines.join("\n")
    }

    fn parsed(text: &str, address: Address) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(format!("it does not begin with `{HEAD}`"));
        }
        let mut record = Self {
            address,
            numbers: (0, 0),
            state: None,
            virtuals: None,
        };
        let mut numbers = None;
        for line in lines.by_ref() {
            let wrong = || format!("`{}` is no line of a record", excerpt(line));
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            match (word, &mut record.state) {
                ("end", _) if value.is_empty() => {
                    record.numbers = numbers.ok_or("it has no numbers")?;
                    return Ok(record);
                }
                ("function", _) if value.parse::<Address>().ok() == Some(address) => {}
                ("numbers", _) => numbers = Some(pair(value).ok_or_else(wrong)?),
                ("state", state @ None) => {
                    *state = Some(State {
                        driver: None,
                        only: None,
                    });
                }
                ("driver", Some(state)) if is_driver(value) => {
                    state.driver = Some(value.to_owned());
                }
                ("only", Some(state)) if is_driver(value) => state.only = Some(value.to_owned()),
                ("vfs", _) => {
                    let (made, autoprobe) = value.split_once(' ').ok_or_else(wrong)?;
                    record.virtuals = Some(VirtualState {
                        made: made.parse().map_err(|_| wrong())?,
                        autoprobe: match autoprobe {
                            "none" => None,
                            on => Some(on.parse().map_err(|_| wrong())?),
                        },
                    });
                }
                _ => return Err(wrong()),
            }
        }
        Err("its end is missing".to_owned())
    }
}

fn pair(text: &str) -> Option<(u16, u16)> {
    let (vendor, device) = text.split_once(':')?;
    let number = |text| u16::from_str_radix(text, 16).ok();
    Some((number(vendor)?, number(device)?))
}

/// Whether a text can be the name of a driver, and of nothing else: it becomes part of a path.
pub(super) fn is_driver(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('.')
}

/// The records of all functions that are changed.
#[derive(Debug)]
pub(super) struct Records {
    home: PathBuf,
    /// The copy that they belong to: its links may lead out of it.
    copy: Option<PathBuf>,
    /// What has drivers look for functions, in the system that is changed.
    probe: PathBuf,
}

/// Nobody else changes anything meanwhile.
pub(super) struct Locked {
    _file: Flock<File>,
    /// `None` in a copy that lacks it.
    _system: Option<Flock<File>>,
}

impl Records {
    pub(super) fn new(host: &Tree, home: &Path) -> Self {
        let copied = !host.is_running() && home.starts_with(host.root());
        Self {
            home: home.to_owned(),
            copy: copied.then(|| host.root().to_owned()),
            probe: host.path(PROBE),
        }
    }

    /// Nothing, if the records are where they belong.
    fn inside(&self) -> Result<(), SysfsError> {
        let Some(copy) = &self.copy else {
            return Ok(());
        };
        let there = |path: &&Path| fs::symlink_metadata(path).is_ok();
        let inside = || {
            let copy = copy.canonicalize()?;
            match self.home.ancestors().find(there) {
                // A link to nothing is an error here.
                Some(above) if !above.canonicalize()?.starts_with(copy) => {
                    Err(io::Error::other("a link leads out of the copy"))
                }
                _ => Ok(()),
            }
        };
        inside().map_err(|error| self.failed(error))
    }

    fn path(&self, address: Address) -> PathBuf {
        self.home.join(address.to_string())
    }

    fn failed(&self, source: io::Error) -> SysfsError {
        SysfsError::Records {
            path: self.home.display().to_string(),
            source,
        }
    }

    /// Keeps everybody else from changing anything.
    pub(super) fn lock(&self) -> Result<Locked, SysfsError> {
        self.inside()?;
        let open = || {
            self.make_home()?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false);
            options.custom_flags(libc::O_NOFOLLOW).mode(0o600);
            options.open(self.home.join("lock"))
        };
        let file = open().map_err(|error| self.failed(error))?;
        Ok(Locked {
            _file: self.locked(file, &self.home.join("lock"))?,
            _system: self.lock_system()?,
        })
    }

    /// Keeps those out whose records are elsewhere. The file is one that only who may change something can open, and
    /// nothing is written to it.
    fn lock_system(&self) -> Result<Option<Flock<File>>, SysfsError> {
        let mut options = OpenOptions::new();
        // In a copy it may be a pipe, which nobody is to wait for.
        options
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        match options.open(&self.probe) {
            Ok(file) => self.locked(file, &self.probe).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SysfsError::Unlockable {
                path: self.probe.display().to_string(),
                source,
            }),
        }
    }

    fn locked(&self, file: File, path: &Path) -> Result<Flock<File>, SysfsError> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(file),
            Err((_, Errno::EWOULDBLOCK)) => Err(SysfsError::Locked {
                path: path.display().to_string(),
            }),
            Err((_, errno)) => Err(self.failed(errno.into())),
        }
    }

    /// What is kept of a function.
    pub(super) fn of(&self, address: Address) -> Result<Option<Record>, SysfsError> {
        self.inside()?;
        let path = self.path(address);
        let why = match Tree::new(&self.home).text(address.to_string(), RECORD) {
            Fact::Absent => return Ok(None),
            Fact::Is(text) => match Record::parsed(&text, address) {
                Ok(record) => return Ok(Some(record)),
                Err(why) => why,
            },
            Fact::Unknown(why) => why,
        };
        Err(SysfsError::Record {
            path: path.display().to_string(),
            why,
        })
    }

    /// The functions of which something is kept.
    pub(super) fn addresses(&self) -> Result<Vec<Address>, SysfsError> {
        self.inside()?;
        match Tree::new(&self.home).names("") {
            Fact::Is(names) => Ok(names.iter().filter_map(|name| name.parse().ok()).collect()),
            Fact::Absent => Ok(Vec::new()),
            Fact::Unknown(why) => Err(self.failed(io::Error::other(why))),
        }
    }

    /// Whether this is what is kept of its function.
    pub(super) fn has(&self, record: &Record) -> Result<bool, SysfsError> {
        Ok(match self.of(record.address)? {
            Some(kept) => kept == *record,
            None => record.is_empty(),
        })
    }

    /// Keeps a record: on return it is whole, and written out if the place is on a disk. A record without anything in it is taken away.
    pub(super) fn keep(&self, record: &Record) -> Result<(), SysfsError> {
        self.inside()?;
        let done = match record.is_empty() {
            true => self.take_away(record.address),
            false => self.write(record),
        };
        done.map_err(|error| self.failed(error))
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        let path = self.path(record.address);
        let new = self.home.join(format!("{}.new", record.address));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        options.custom_flags(libc::O_NOFOLLOW).mode(0o644);
        let mut file = options.open(&new)?;
        file.write_all(record.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(new, path)?;
        self.sync()
    }

    fn take_away(&self, address: Address) -> io::Result<()> {
        match fs::remove_file(self.path(address)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync(),
        }
    }

    /// Makes the directory, and writes out the names that lead to it.
    fn make_home(&self) -> io::Result<()> {
        let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let made: Vec<&Path> = self.home.ancestors().take_while(missing).collect();
        fs::create_dir_all(&self.home)?;
        for parent in made.iter().filter_map(|path| path.parent()) {
            let parent = match parent.as_os_str().is_empty() {
                true => Path::new("."),
                false => parent,
            };
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    /// The names in the directory are written out.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.home)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_with_records_in_different_places_do_not_change_one_function_at_once() {
        let root = tempfile::tempdir().unwrap();
        let bus = root.path().join("sys/bus/pci");
        fs::create_dir_all(&bus).unwrap();
        fs::write(bus.join("drivers_probe"), "").unwrap();
        let records = |home: &str| Records::new(&Tree::new(root.path()), &root.path().join(home));
        let (one, other) = (records("one"), records("other"));
        let held = one.lock().unwrap();
        let refused = other.lock().err().unwrap();
        assert!(
            matches!(&refused, SysfsError::Locked { path } if path.ends_with("drivers_probe")),
            "{refused}"
        );
        drop(held);
        drop(other.lock().unwrap());
        fs::remove_file(bus.join("drivers_probe")).unwrap();
        let _both = (one.lock().unwrap(), other.lock().unwrap());
    }

    #[test]
    fn a_system_that_cannot_be_locked_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let bus = root.path().join("sys/bus/pci");
        fs::create_dir_all(&bus).unwrap();
        let pipe = bus.join("drivers_probe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let records = Records::new(&Tree::new(root.path()), &root.path().join("home"));
        let refused = records.lock().err().unwrap();
        assert!(
            matches!(refused, SysfsError::Unlockable { .. }),
            "{refused}"
        );
    }
}
