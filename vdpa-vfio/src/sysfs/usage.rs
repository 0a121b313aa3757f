//! What a function is good for at this moment: what would be lost if it were taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use nix::errno::Errno;

use super::address::excerpt;
use super::error::said;
use super::function::DEVICES;
use super::tree::{ATTRIBUTE, Tree, number};
use super::{Address, Fact, Function};

/// Bytes of a table in `/proc`.
const TABLE: usize = 4 << 20;

/// Directories from a function to devices of its own devices: `virtio0`, say.
const DEPTH: u8 = 3;

/// Something that a function is used for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Usage {
    /// A network interface that is up.
    Interface {
        /// Its name.
        name: String,
        /// Whether packets to anywhere leave by it.
        default_route: bool,
    },
    /// A disk with a file system in use.
    Mounted {
        /// The disk, or the part of it.
        disk: String,
        /// Where the file system is.
        at: String,
    },
    /// A disk that memory is swapped out to.
    Swap {
        /// The disk, or the part of it.
        disk: String,
    },
    /// A disk that the kernel has given to somebody for himself alone: a file system, swap space, or a disk made of it.
    Claimed {
        /// The disk, or the part of it.
        disk: String,
    },
    /// The display that the machine starts with.
    Display,
    /// Virtual functions of it, which go with it.
    VirtualFunctions {
        /// How many.
        count: usize,
    },
    /// A process has it open through VFIO.
    Opened {
        /// The process.
        pid: u32,
        /// What it calls itself.
        name: String,
    },
    /// It cannot be seen whether it is used.
    Unknown {
        /// What is in the way.
        why: String,
    },
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface {
                name,
                default_route: false,
            } => write!(f, "interface {name} is up"),
            Self::Interface { name, .. } => {
                write!(f, "interface {name} is up and has the default route")
            }
            Self::Mounted { disk, at } => write!(f, "{disk} is mounted at {at}"),
            Self::Swap { disk } => write!(f, "{disk} is swap space"),
            Self::Claimed { disk } => write!(f, "the kernel says that {disk} is in use"),
            Self::Display => write!(f, "it is the machine's display"),
            Self::VirtualFunctions { count } => write!(f, "it has {count} virtual functions"),
            Self::Opened { pid, name } => write!(f, "process {pid} ({name}) has it open"),
            Self::Unknown { why } => write!(f, "it cannot be seen whether it is used: {why}"),
        }
    }
}

impl Usage {
    /// What the function is used for, in an order of its own.
    pub(super) fn of(tree: &Tree, function: &Function) -> Vec<Self> {
        let mut found = BTreeSet::new();
        let path = tree.path(format!("{DEVICES}/{}", function.address));
        match fs::canonicalize(path) {
            Ok(home) => {
                let at_home = |class: &str| -> Result<BTreeSet<String>, Self> {
                    let names = match tree.names(class) {
                        Fact::Is(names) => names,
                        Fact::Absent => return Ok(BTreeSet::new()),
                        Fact::Unknown(why) => {
                            let why = format!("{class}: {why}");
                            return Err(Self::Unknown { why });
                        }
                    };
                    let of_it = |name: &String| {
                        let device = fs::canonicalize(tree.path(format!("{class}/{name}")));
                        device.is_ok_and(|device| device.starts_with(&home))
                    };
                    Ok(names.into_iter().filter(of_it).collect())
                };
                match at_home("/sys/class/net") {
                    Ok(names) => interfaces(tree, names, &mut found),
                    Err(unknown) => drop(found.insert(unknown)),
                }
                let home = format!("{DEVICES}/{}", function.address);
                elsewhere(tree, &home, DEPTH, &mut found);
                match at_home("/sys/class/block") {
                    Ok(names) => disks(tree, names, &mut found),
                    Err(unknown) => drop(found.insert(unknown)),
                }
            }
            Err(error) => drop(found.insert(Self::Unknown { why: said(&error) })),
        }
        if display(tree, function.address) {
            found.insert(Self::Display);
        }
        if let Some(sriov) = function.sriov.known()
            && let count @ 1.. = sriov.functions.len()
        {
            found.insert(Self::VirtualFunctions { count });
        }
        if function.is_vfio() {
            openers(tree, function, &mut found);
        }
        found.into_iter().collect()
    }
}

fn display(tree: &Tree, address: Address) -> bool {
    let first = tree.number::<u8>(format!("{DEVICES}/{address}/boot_vga"));
    first == Fact::Is(1)
}

fn interfaces(tree: &Tree, names: BTreeSet<String>, found: &mut BTreeSet<Usage>) {
    /// `linux/if.h`.
    const IFF_UP: u64 = 1;

    if names.is_empty() {
        return;
    }
    let default = default_routes(tree);
    for name in names {
        let default_route = default.contains(&name);
        match tree.number::<u64>(format!("/sys/class/net/{name}/flags")) {
            Fact::Is(flags) if flags & IFF_UP == 0 && !default_route => {}
            Fact::Unknown(why) => drop(found.insert(Usage::Unknown {
                why: format!("interface {name}: {why}"),
            })),
            Fact::Is(_) | Fact::Absent => drop(found.insert(Usage::Interface {
                name,
                default_route,
            })),
        }
    }
}

/// Interfaces in another network namespace are not to be seen, but the directory that they are in is: the kernel takes it
/// away with the last of them.
///
/// * `home`: a directory of a device
/// * `depth`: how many directories deep devices of it may be
///
/// # Spec
/// Linux, `drivers/base/core.c`: directories between a device and those of a class.
fn elsewhere(tree: &Tree, home: &str, depth: u8, found: &mut BTreeSet<Usage>) {
    let within = match tree.names(home) {
        Fact::Is(names) => names,
        Fact::Absent => return,
        Fact::Unknown(why) => {
            let why = format!("{home}: {why}");
            found.insert(Usage::Unknown { why });
            return;
        }
    };
    for name in within {
        let path = format!("{home}/{name}");
        // Links lead to other devices.
        if !fs::symlink_metadata(tree.path(&path)).is_ok_and(|about| about.is_dir()) {
            continue;
        }
        if name == "net" {
            let why = match tree.names(&path) {
                Fact::Is(names) if names.is_empty() => {
                    "its network interface is in another network namespace".to_owned()
                }
                Fact::Unknown(why) => format!("{path}: {why}"),
                Fact::Is(_) | Fact::Absent => continue,
            };
            found.insert(Usage::Unknown { why });
        } else if let Some(deeper) = depth.checked_sub(1) {
            elsewhere(tree, &path, deeper, found);
        }
    }
}

/// The interfaces by which packets to anywhere leave.
///
/// # Spec
/// `proc_net(5)`: a line a route, columns in hexadecimal.
fn default_routes(tree: &Tree) -> BTreeSet<String> {
    let lines = |path: &str| tree.text(path, TABLE).known().cloned().unwrap_or_default();
    let mut names = BTreeSet::new();
    for line in lines("/proc/net/route").lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if let [name, "00000000", _, _, _, _, _, "00000000", ..] = columns[..] {
            names.insert(name.to_owned());
        }
    }
    for line in lines("/proc/net/ipv6_route").lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if let [to, "00", .., name] = columns[..]
            && to.bytes().all(|digit| digit == b'0')
        {
            names.insert(name.to_owned());
        }
    }
    names
}

fn disks(tree: &Tree, names: BTreeSet<String>, found: &mut BTreeSet<Usage>) {
    if names.is_empty() {
        return;
    }
    let mounts = match tree.text("/proc/self/mountinfo", TABLE) {
        Fact::Is(text) => mounts(&text),
        Fact::Absent => BTreeMap::new(),
        Fact::Unknown(why) => {
            let why = format!("mounts: {why}");
            found.insert(Usage::Unknown { why });
            BTreeMap::new()
        }
    };
    let swaps = tree
        .text("/proc/swaps", TABLE)
        .known()
        .cloned()
        .unwrap_or_default();
    let sets = sets(tree);
    for disk in with_those_above(tree, names) {
        let keys = keys(tree, &disk);
        let of_set = sets.iter().find(|(_, members)| members.contains(&disk));
        let at = keys.iter().find_map(|key| mounts.get(key));
        let at = at.map(|at| excerpt(at));
        // A set of disks is mounted by the name of one of them.
        let at = at.or_else(|| {
            let (id, members) = of_set?;
            let all = members.iter().flat_map(|member| self::keys(tree, member));
            let at = all.filter_map(|key| mounts.get(&key)).next();
            Some(match at {
                Some(at) => excerpt(at),
                None => format!("a place not seen from here (btrfs {})", excerpt(id)),
            })
        });
        let swapped = |line: &str| {
            let file = line.split_whitespace().next();
            file.is_some_and(|file| keys.iter().any(|key| key == file))
        };
        let told = found.len();
        if let Some(at) = at {
            let disk = disk.clone();
            found.insert(Usage::Mounted { disk, at });
        }
        if swaps.lines().any(swapped) {
            found.insert(Usage::Swap { disk: disk.clone() });
        }
        if found.len() == told && tree.is_running() {
            found.extend(claimed(tree, &disk));
        }
    }
}

/// What a disk is called where it is used: its number, its file, and the file of the name that its maker gave it.
fn keys(tree: &Tree, disk: &str) -> Vec<String> {
    let home = format!("/sys/class/block/{disk}");
    let number = tree.text(format!("{home}/dev"), ATTRIBUTE);
    let name = tree.text(format!("{home}/dm/name"), ATTRIBUTE);
    let mut keys = vec![file(disk)];
    keys.extend(number.known().cloned());
    keys.extend(name.known().map(|name| format!("/dev/mapper/{name}")));
    keys
}

/// The file of a disk: sysfs has no names with a slash in them, and writes `!`.
fn file(disk: &str) -> String {
    format!("/dev/{}", disk.replace('!', "/"))
}

/// The file systems of several disks that are mounted somewhere: by their numbers, the disks.
///
/// # Spec
/// Linux, `fs/btrfs/sysfs.c`: `/sys/fs/btrfs/UUID/devices`.
fn sets(tree: &Tree) -> BTreeMap<String, Vec<String>> {
    const SETS: &str = "/sys/fs/btrfs";

    let all = tree.names(SETS).known().cloned().unwrap_or_default();
    let members = |id: String| {
        let members = tree.names(format!("{SETS}/{id}/devices"));
        Some((id, members.known()?.clone()))
    };
    all.into_iter().filter_map(members).collect()
}

/// Asks the kernel of this machine whether somebody has a disk for himself alone. It knows of mounts that are not to be
/// seen from here, and of names that nobody thought of.
pub(super) fn claimed(tree: &Tree, disk: &str) -> Option<Usage> {
    let number = tree.text(format!("/sys/class/block/{disk}/dev"), ATTRIBUTE);
    // One of the paths to an NVMe disk has no file: it is the disk that is asked for.
    if number.known().is_none_or(|number| number.starts_with("0:")) {
        return None;
    }
    let path = tree.path(file(disk));
    let mut options = OpenOptions::new();
    // Without O_CREAT it asks for a block device that nobody else has; see open(2).
    options
        .read(true)
        .custom_flags(libc::O_EXCL | libc::O_NONBLOCK);
    let opened = match fs::metadata(&path) {
        Ok(about) if !about.file_type().is_block_device() => Err(Errno::ENOTBLK.into()),
        Ok(_) => options.open(&path).map(drop),
        Err(error) => Err(error),
    };
    claim(disk, opened.err()?)
}

/// What it means that a disk could not be opened by oneself alone.
pub(super) fn claim(disk: &str, error: io::Error) -> Option<Usage> {
    let disk = disk.to_owned();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => Some(Usage::Claimed { disk }),
        // Whoever may not open disks may not change drivers either; and nothing is on a disk that was taken out.
        Some(Errno::EACCES | Errno::EPERM | Errno::ENOMEDIUM | Errno::ENXIO) => None,
        _ => Some(Usage::Unknown {
            why: format!("{}: {}", file(&disk), said(&error)),
        }),
    }
}

/// The disks, and those that are made of them: encrypted ones, arrays, volumes, and an NVMe disk of several paths.
fn with_those_above(tree: &Tree, names: BTreeSet<String>) -> BTreeSet<String> {
    let all = tree
        .names("/sys/class/block")
        .known()
        .cloned()
        .unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut open: Vec<String> = names.into_iter().collect();
    while let Some(name) = open.pop() {
        if let Fact::Is(holders) = tree.names(format!("/sys/class/block/{name}/holders")) {
            open.extend(holders.into_iter().filter(|holder| !seen.contains(holder)));
        }
        if let Some(head) = nvme_head(&name) {
            let parts = format!("{head}p");
            let of_it = all
                .iter()
                .filter(|name| **name == head || name.starts_with(&parts));
            open.extend(of_it.filter(|name| !seen.contains(*name)).cloned());
        }
        seen.insert(name);
    }
    seen
}

/// The disk that the path `nvme0c1n1` leads to: `nvme0n1`.
fn nvme_head(path: &str) -> Option<String> {
    let (subsystem, rest) = path.strip_prefix("nvme")?.split_once('c')?;
    let (_, namespace) = rest.split_once('n')?;
    Some(format!("nvme{subsystem}n{namespace}"))
}

/// Mount points by the device's number, and by its file.
///
/// # Spec
/// `proc_pid_mountinfo(5)`: `36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw`.
fn mounts(text: &str) -> BTreeMap<String, String> {
    let mut mounts = BTreeMap::new();
    for line in text.lines() {
        let (front, back) = line.split_once(" - ").unwrap_or((line, ""));
        let mut front = front.split(' ').skip(2);
        let (Some(number), Some(_), Some(at)) = (front.next(), front.next(), front.next()) else {
            continue;
        };
        for key in [Some(number), back.split(' ').nth(1)].into_iter().flatten() {
            mounts
                .entry(key.to_owned())
                .or_insert_with(|| at.to_owned());
        }
    }
    mounts
}

/// The processes that have the function's group, or itself, open.
fn openers(tree: &Tree, function: &Function, found: &mut BTreeSet<Usage>) {
    let group = function
        .iommu_group
        .known()
        .map(|group| format!("/dev/vfio/{group}"));
    let device = function
        .vfio_device
        .known()
        .map(|name| format!("/dev/vfio/devices/{name}"));
    let files = [group, device];
    let ours = |target: &str| files.iter().flatten().any(|file| file == target);
    let processes = tree.names("/proc").known().cloned().unwrap_or_default();
    for pid in processes {
        let Some(id) = number(&pid).and_then(|id| u32::try_from(id).ok()) else {
            continue;
        };
        // Of another user's process nothing is seen.
        let Fact::Is(open) = tree.names(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let has_it = open.iter().any(|fd| {
            let target = fs::read_link(tree.path(format!("/proc/{pid}/fd/{fd}")));
            target.is_ok_and(|target| target.to_str().is_some_and(ours))
        });
        if has_it {
            let name = tree.text(format!("/proc/{pid}/comm"), ATTRIBUTE);
            let name = name
                .known()
                .map_or("unknown".to_owned(), |name| excerpt(name));
            found.insert(Usage::Opened { pid: id, name });
        }
    }
}
