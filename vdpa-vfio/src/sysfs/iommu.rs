//! Whether an IOMMU stands between devices and memory.

use super::Fact;
use super::group::GROUPS;
use super::tree::{ATTRIBUTE, Tree};

/// Bytes of `/proc/cmdline` and `/proc/cpuinfo` that are looked at.
const TEXT: usize = 1 << 20;

/// The system's IOMMUs, as they were when they were looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Iommu {
    /// The names of the units that are on: `dmar0`.
    pub units: Fact<Vec<String>>,
    /// How many groups they make; those that do without an IOMMU are not counted.
    pub groups: Fact<usize>,
    /// What on the kernel's command line switches them off.
    pub off_by: Option<&'static str>,
    /// Who made the processor.
    pub maker: Fact<Maker>,
}

/// Who made the processor: each calls its IOMMU by another name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maker {
    /// Intel: VT-d.
    Intel,
    /// AMD: AMD-Vi.
    Amd,
}

impl Iommu {
    pub(super) fn read(tree: &Tree) -> Self {
        let groups = tree.names(GROUPS).map(|names| {
            let real = |group: &&String| {
                let name = tree.text(format!("{GROUPS}/{group}/name"), ATTRIBUTE);
                name.known().is_none_or(|name| name != "vfio-noiommu")
            };
            names.iter().filter(real).count()
        });
        let line = tree.text("/proc/cmdline", TEXT);
        let words: Vec<&str> = line
            .known()
            .into_iter()
            .flat_map(|line| line.split(' '))
            .collect();
        // The last one counts, where one is given twice.
        let last = |key: &str| {
            words
                .iter()
                .rev()
                .find(|word| word.starts_with(key))
                .copied()
        };
        let off = ["iommu=off", "intel_iommu=off", "amd_iommu=off"];
        Self {
            units: tree.names("/sys/class/iommu"),
            groups,
            off_by: off.into_iter().find(|off| {
                let (key, _) = off.split_at(off.len().saturating_sub("off".len()));
                last(key) == Some(off)
            }),
            maker: tree
                .text("/proc/cpuinfo", TEXT)
                .and_then(|text| maker(&text)),
        }
    }

    /// Whether devices are behind one.
    pub fn is_on(&self) -> Fact<bool> {
        match &self.groups {
            Fact::Is(groups) => Fact::Is(*groups > 0),
            Fact::Absent => Fact::Is(false),
            Fact::Unknown(why) => Fact::Unknown(why.clone()),
        }
    }

    /// How to switch it on.
    pub fn mend(&self) -> String {
        if let Some(option) = self.off_by {
            return format!("take {option} off the kernel's command line, and reboot");
        }
        let how = match self.maker {
            Fact::Is(Maker::Intel) => {
                "switch VT-d on in the firmware and put intel_iommu=on iommu=pt on the kernel's command line"
            }
            Fact::Is(Maker::Amd) => {
                "switch AMD-Vi (IOMMU) on in the firmware and put iommu=pt on the kernel's command line"
            }
            Fact::Absent | Fact::Unknown(_) => "switch the IOMMU on in the firmware",
        };
        format!("{how}, and reboot")
    }
}

fn maker(text: &str) -> Fact<Maker> {
    let line = text.lines().find(|line| line.starts_with("vendor_id"));
    match line.and_then(|line| line.rsplit(' ').next()) {
        Some("GenuineIntel") => Fact::Is(Maker::Intel),
        Some("AuthenticAMD" | "HygonGenuine") => Fact::Is(Maker::Amd),
        _ => Fact::Absent,
    }
}
