//! What is in the way of using a function, and what mends it.

use std::fmt::Write;

use nix::unistd::geteuid;
use vdpa_core::{Chain, ErrorKind};
use vdpa_pci::Layout;
use vdpa_pci::layout::Structure;

use super::{Bar, Fact, Function, Group, Host, Identity, Member, Opens, Standing, Usage};

/// The memory that a process should be able to lock: what a modest driver maps.
const MEMLOCK: u64 = 64 << 20;

/// The finding of where virtio's structures are. Unknown, it may yet be found out through VFIO.
pub const REGISTERS: &str = "registers";

/// Whether something is as it has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is.
    Pass,
    /// It is not.
    Fail,
    /// It cannot be seen yet.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What: one word or two.
    pub what: &'static str,
    /// Whether it is as it has to be.
    pub verdict: Verdict,
    /// What was found, in one line.
    pub found: String,
    /// What makes it as it has to be, or lets it be seen: a command, where there is one.
    pub mend: Option<String>,
}

impl Finding {
    fn pass(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            verdict: Verdict::Pass,
            found: found.into(),
            mend: None,
        }
    }

    fn fail(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            mend: Some(mend.into()),
            ..Self::pass(what, found)
        }
    }

    fn unknown(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Unknown,
            ..Self::fail(what, found, mend)
        }
    }
}

/// Looks at everything that using a function through VFIO takes. Nothing is changed, and nothing is opened.
///
/// In the order in which it has to be mended: identity, IOMMU, group, driver, users, device file, VFIO's file, locked
/// memory, BARs, virtio's structures.
///
/// Of a function that is no virtio only that is to be mended: whatever else was done would be in vain.
pub fn examine(host: &Host, function: &Function) -> Vec<Finding> {
    let identity = identity(host, function);
    let in_vain = identity.verdict == Verdict::Fail;
    let mut findings = vec![iommu(host), group(host, function), driver(host, function)];
    findings.extend(users(host, function));
    findings.extend(files(host, function));
    findings.push(memlock(host));
    findings.push(bars(host, function));
    findings.extend(structures(host, function));
    if in_vain {
        for finding in &mut findings {
            finding.mend = None;
        }
    }
    findings.insert(0, identity);
    findings
}

/// A command of ours for the system that was looked at.
fn vdpactl(host: &Host, command: &str) -> String {
    match host.tree.is_running() {
        true => format!("vdpactl vfio {command}"),
        false => format!(
            "vdpactl vfio {command} --root {}",
            host.tree.root().display()
        ),
    }
}

/// A command that shows what is at a path of the system that was looked at.
fn show(host: &Host, command: &str, path: &str) -> String {
    format!("{command} {}", host.tree.path(path).display())
}

/// Where sysfs describes a function, or a part of it.
fn described(function: &Function, part: &str) -> String {
    format!("/sys/bus/pci/devices/{}{part}", function.address)
}

fn identity(host: &Host, function: &Function) -> Finding {
    const WHAT: &str = "function";

    let ids = format!(
        "{}:{}",
        hex(function.vendor.known()),
        hex(function.device.known())
    );
    let identity = function.identity();
    let found = format!("{ids}, {identity}");
    match identity {
        Identity::Virtio { .. } => Finding::pass(WHAT, found),
        Identity::Other { .. } => Finding::fail(
            WHAT,
            found,
            format!(
                "take another function: {} shows those that are virtio",
                vdpactl(host, "list")
            ),
        ),
        Identity::Unknown => {
            let mend = show(host, "ls -l", &described(function, ""));
            Finding::unknown(WHAT, "its numbers cannot be read", mend)
        }
    }
}

fn hex(number: Option<&u16>) -> String {
    number.map_or("?".to_owned(), |number| format!("{number:04x}"))
}

fn iommu(host: &Host) -> Finding {
    const WHAT: &str = "IOMMU";

    let iommu = host.iommu();
    match iommu.is_on() {
        Fact::Is(true) => {
            let units = iommu.units.known().map_or(0, Vec::len);
            let groups = iommu.groups.known().copied().unwrap_or(0);
            Finding::pass(WHAT, format!("on, units: {units}, groups: {groups}"))
        }
        Fact::Is(false) | Fact::Absent => Finding::fail(WHAT, "off", iommu.mend()),
        Fact::Unknown(why) => {
            Finding::unknown(WHAT, why, show(host, "ls", "/sys/kernel/iommu_groups"))
        }
    }
}

fn group(host: &Host, function: &Function) -> Finding {
    const WHAT: &str = "group";

    let number = match &function.iommu_group {
        Fact::Is(number) => *number,
        Fact::Absent => {
            return Finding::fail(WHAT, "in no IOMMU group", host.iommu().mend());
        }
        Fact::Unknown(why) => {
            let mend = show(host, "ls -l", &described(function, "/iommu_group"));
            return Finding::unknown(WHAT, why.clone(), mend);
        }
    };
    let group = host.group(number);
    let found = format!("{number}: {}", members(&group));
    if group.no_iommu {
        return Finding::fail(
            WHAT,
            format!("{number} is one only by name: VFIO does without an IOMMU"),
            host.iommu().mend(),
        );
    }
    match group.viable() {
        Fact::Is(true) => Finding::pass(WHAT, found),
        Fact::Is(false) => {
            // The function itself has a line of its own.
            let own = function.address.to_string();
            let others = group.in_the_way();
            let binds: Vec<String> = others
                .iter()
                .filter(|member| member.name != own)
                .map(|member| vdpactl(host, &format!("bind {}", member.name)))
                .collect();
            match binds[..] {
                [] => Finding::pass(WHAT, found),
                _ => Finding::fail(
                    WHAT,
                    format!("{found}; not viable"),
                    format!(
                        "{}; or another slot, where it has a group of its own",
                        binds.join("; ")
                    ),
                ),
            }
        }
        Fact::Absent | Fact::Unknown(_) => Finding::unknown(
            WHAT,
            format!("{number}, and its members cannot be seen"),
            show(
                host,
                "ls",
                &format!("/sys/kernel/iommu_groups/{number}/devices"),
            ),
        ),
    }
}

fn members(group: &Group) -> String {
    let member = |Member { name, standing }: &Member| match standing {
        Standing::Vfio => format!("{name} (VFIO)"),
        Standing::Free => format!("{name} (no driver)"),
        Standing::Harmless { driver } | Standing::Taken { driver } => format!("{name} ({driver})"),
        Standing::Unknown { .. } => format!("{name} (driver unknown)"),
    };
    let members = group.members.known().into_iter().flatten();
    members.map(member).collect::<Vec<_>>().join(", ")
}

fn driver(host: &Host, function: &Function) -> Finding {
    const WHAT: &str = "driver";

    let bind = bind(host, function);
    let bind = match host.has("/sys/bus/pci/drivers/vfio-pci") {
        true => bind,
        false => format!("modprobe vfio-pci; {bind}"),
    };
    match &function.driver {
        Fact::Is(driver) if function.is_vfio() => Finding::pass(WHAT, driver),
        Fact::Is(driver) => Finding::fail(WHAT, format!("{driver} has it, not VFIO"), bind),
        Fact::Absent => Finding::fail(WHAT, "none has it", bind),
        Fact::Unknown(why) => {
            let mend = show(host, "ls -l", &described(function, "/driver"));
            Finding::unknown(WHAT, why.clone(), mend)
        }
    }
}

fn bind(host: &Host, function: &Function) -> String {
    vdpactl(host, &format!("bind {}", function.address))
}

/// Only told where there are some: who would miss the function if it were bound, or, once it is, who has it open.
fn users(host: &Host, function: &Function) -> Option<Finding> {
    let mut usage = host.usage(function);
    if function.is_vfio() {
        usage.retain(|usage| matches!(usage, Usage::Opened { .. }));
    }
    if usage.is_empty() {
        return None;
    }
    let found: Vec<String> = usage.iter().map(Usage::to_string).collect();
    let seen = usage
        .iter()
        .any(|usage| !matches!(usage, Usage::Unknown { .. }));
    let make = match seen {
        true => Finding::fail,
        false => Finding::unknown,
    };
    Some(make("users", found.join(", "), "end that use first"))
}

fn files(host: &Host, function: &Function) -> [Finding; 2] {
    let vfio = "/dev/vfio/vfio";
    let group = function
        .iommu_group
        .known()
        .map(|group| format!("/dev/vfio/{group}"));
    let device = function.vfio_device.known();
    let device = device.map(|name| format!("/dev/vfio/devices/{name}"));
    // By the group where that has a file, as functions are opened.
    let by_group = group.filter(|group| device.is_none() || host.opens(group) != Opens::Missing);
    let (file, container) = match (by_group, device) {
        (None, Some(device)) => (Some(device), "/dev/iommu"),
        (group, _) => (group, vfio),
    };
    let module = "modprobe vfio-pci";
    let file = match file {
        None => Finding {
            verdict: Verdict::Unknown,
            ..Finding::pass("device file", "there is none before there is a group")
        },
        Some(path) if function.is_vfio() => opened(host, "device file", &path, module),
        Some(path) => Finding::unknown(
            "device file",
            format!("{path} is there when VFIO has the function"),
            bind(host, function),
        ),
    };
    [file, opened(host, "VFIO", container, module)]
}

fn opened(host: &Host, what: &'static str, path: &str, missing: &str) -> Finding {
    match host.opens(path) {
        Opens::Yes => Finding::pass(what, format!("{path} can be opened")),
        Opens::Denied { uid, gid, mode } => Finding::fail(
            what,
            format!("{path} belongs to user {uid}, group {gid}, with mode {mode:04o}"),
            format!("sudo chown {} {path}, or run as root", geteuid()),
        ),
        Opens::Missing => Finding::fail(what, format!("{path} is not there"), missing),
        Opens::Unknown { why } => {
            Finding::unknown(what, format!("{path}: {why}"), format!("ls -l {path}"))
        }
    }
}

fn memlock(host: &Host) -> Finding {
    const WHAT: &str = "locked memory";

    let mend =
        "ulimit -l unlimited as root, or a memlock line for the user in /etc/security/limits.conf";
    match host.memlock().bytes() {
        Fact::Is(u64::MAX) => Finding::pass(WHAT, "unlimited"),
        Fact::Is(bytes) if bytes >= MEMLOCK => {
            Finding::pass(WHAT, format!("at most {}", size(bytes)))
        }
        Fact::Is(bytes) => Finding::fail(
            WHAT,
            format!("at most {}: what a device reaches has to fit", size(bytes)),
            mend,
        ),
        Fact::Absent => Finding::unknown(WHAT, "the limit cannot be seen", "ulimit -l"),
        Fact::Unknown(why) => Finding::unknown(WHAT, why, "ulimit -l"),
    }
}

fn bars(host: &Host, function: &Function) -> Finding {
    const WHAT: &str = "BARs";

    let look = || show(host, "cat", &described(function, "/resource"));
    match &function.bars {
        Fact::Is(bars) => {
            let each: Vec<String> = bars.iter().map(bar).collect();
            let found = match bars[..] {
                [] => "none has an address".to_owned(),
                _ => each.join(", "),
            };
            match bars.iter().any(|bar| bar.memory) {
                true => Finding::pass(WHAT, found),
                false => Finding::fail(
                    WHAT,
                    format!("{found}: no registers in memory"),
                    "put pci=realloc on the kernel's command line, and reboot",
                ),
            }
        }
        Fact::Absent => Finding::unknown(WHAT, "they cannot be seen", look()),
        Fact::Unknown(why) => Finding::unknown(WHAT, why.clone(), look()),
    }
}

fn bar(bar: &Bar) -> String {
    let kind = match (bar.memory, bar.wide) {
        (false, _) => " I/O ports",
        (true, true) => " 64-bit",
        (true, false) => "",
    };
    format!("{}: {}{kind}", bar.index, size(bar.len))
}

/// Only told of what may be virtio.
fn structures(host: &Host, function: &Function) -> Option<Finding> {
    if matches!(function.identity(), Identity::Other { .. }) {
        return None;
    }
    let shown = match host.shown(function) {
        Ok(shown) => shown,
        Err(error) => {
            let mend = match (host.tree.is_running(), geteuid().is_root()) {
                (false, _) => "make the copy as root".to_owned(),
                (true, true) => show(host, "ls -l", &described(function, "/config")),
                (true, false) => format!("sudo vdpactl vfio doctor {}", function.address),
            };
            return Some(Finding::unknown(REGISTERS, Chain(&error).to_string(), mend));
        }
    };
    Some(match Layout::read(&shown) {
        Ok(layout) => Finding::pass(REGISTERS, placed(&layout)),
        Err(error) => {
            let mend = match error.kind() {
                ErrorKind::Gone => "echo 1 > /sys/bus/pci/rescan, or a reset of its slot",
                _ => "another function, or other firmware",
            };
            Finding::fail(REGISTERS, Chain(&error).to_string(), mend)
        }
    })
}

fn placed(layout: &Layout) -> String {
    let at = |name: &str, structure: &Structure| {
        format!("{name} {}+{:#x}", structure.bar, structure.offset)
    };
    let mut found = at("common", &layout.common);
    let _ = write!(
        found,
        ", {} x {}",
        at("notify", &layout.notify),
        layout.notify_multiplier
    );
    let rest = [("ISR", &layout.isr), ("device", &layout.device)];
    for (name, structure) in rest {
        if let Some(structure) = structure {
            let _ = write!(found, ", {}", at(name, structure));
        }
    }
    match &layout.msix {
        Some(msix) => {
            let _ = write!(found, ", {} MSI-X vectors", msix.vectors);
        }
        None => found += ", no MSI-X",
    }
    for ignored in &layout.ignored {
        let _ = write!(found, "; {ignored}");
    }
    found
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = |(shift, unit): (u32, &str)| {
        let one = 1_u64 << shift;
        (bytes >= one && bytes.is_multiple_of(one)).then(|| format!("{} {unit}", bytes >> shift))
    };
    let fits = units.into_iter().find_map(whole);
    fits.unwrap_or_else(|| format!("{bytes} bytes"))
}
