//! `vdpactl vfio list`: which functions there are.

use serde::Serialize;
use vdpa::vfio::sysfs::{Bar, Fact, Function, Host, Identity};

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::vfio::{failed, known};

#[derive(Serialize)]
struct Report {
    /// Null: it cannot be seen.
    iommu: Option<bool>,
    functions: Vec<Row>,
}

/// A function. What is null is not there, or cannot be read.
#[derive(Serialize)]
pub(super) struct Row {
    function: String,
    vendor: Option<u16>,
    device: Option<u16>,
    subsystem_vendor: Option<u16>,
    subsystem_device: Option<u16>,
    class: Option<u32>,
    revision: Option<u8>,
    what: String,
    /// What kind of virtio device.
    #[serde(rename = "type")]
    device_type: Option<String>,
    driver: Option<String>,
    driver_override: Option<String>,
    vfio: bool,
    group: Option<u32>,
    numa_node: Option<u32>,
    physical: Option<String>,
    vfs: Option<Virtuals>,
    bars: Vec<Region>,
}

#[derive(Serialize)]
struct Virtuals {
    total: Option<u16>,
    made: Option<u16>,
    functions: Vec<String>,
}

#[derive(Serialize)]
struct Region {
    bar: u8,
    start: u64,
    len: u64,
    kind: &'static str,
}

impl Row {
    pub(super) fn of(function: &Function) -> Self {
        let identity = function.identity();
        let region = |bar: &Bar| Region {
            bar: bar.index,
            start: bar.start,
            len: bar.len,
            kind: if bar.memory { "memory" } else { "io" },
        };
        Self {
            function: function.address.to_string(),
            vendor: known(&function.vendor),
            device: known(&function.device),
            subsystem_vendor: known(&function.subsystem_vendor),
            subsystem_device: known(&function.subsystem_device),
            class: known(&function.class),
            revision: known(&function.revision),
            what: identity.to_string(),
            device_type: match identity {
                Identity::Virtio { device_type, .. } => Some(device_type.to_string()),
                _ => None,
            },
            driver: known(&function.driver),
            driver_override: known(&function.driver_override),
            vfio: function.is_vfio(),
            group: known(&function.iommu_group),
            numa_node: known(&function.numa_node),
            physical: function.physical.known().map(ToString::to_string),
            vfs: function.sriov.known().map(|sriov| Virtuals {
                total: known(&sriov.total),
                made: known(&sriov.made),
                functions: sriov.functions.iter().map(ToString::to_string).collect(),
            }),
            bars: function
                .bars
                .known()
                .into_iter()
                .flatten()
                .map(region)
                .collect(),
        }
    }
}

/// Lists them.
pub(super) fn run(host: &Host, all: bool, output: &mut Output) -> Result<Verdict, Failure> {
    let functions = host.functions().map_err(failed)?;
    let listed: Vec<&Function> = functions.iter().filter(|one| all || is_ours(one)).collect();
    let report = Report {
        iommu: known(&host.iommu().is_on()),
        functions: listed.iter().map(|one| Row::of(one)).collect(),
    };
    tell(&report, &listed, functions.len(), output)?;
    output.object(&report)?;
    Ok(Verdict::Well)
}

/// Virtio, what is taken for it, what has virtual functions, and what VFIO has.
fn is_ours(function: &Function) -> bool {
    function.is_vfio()
        || function.sriov.known().is_some()
        || !matches!(function.identity(), Identity::Other { known: None })
}

fn tell(
    report: &Report,
    functions: &[&Function],
    all: usize,
    output: &mut Output,
) -> Result<(), Failure> {
    let paint = output.paint();
    let line = |address: &str, ids: &str, driver: &str, group: &str, node: &str| {
        format!("{address:<12}  {ids:<9}  {driver:<15}  {group:<7}  {node:<7}  ")
    };
    let heading = line("function", "ids", "driver", "group", "node") + "what";
    output.say(&paint.heading(heading))?;
    for function in functions {
        let number = |number: &Fact<u16>| match number {
            Fact::Is(number) => format!("{number:04x}"),
            _ => "????".to_owned(),
        };
        let ids = format!("{}:{}", number(&function.vendor), number(&function.device));
        let address = function.address.to_string();
        let row = line(
            &address,
            &ids,
            &function.driver.to_string(),
            &function.iommu_group.to_string(),
            &function.numa_node.to_string(),
        );
        let (address, rest) = row.split_at(address.len());
        output.say(&format!("{}{rest}{}", paint.name(address), what(function)))?;
    }
    let others = all - functions.len();
    if others > 0 {
        let are = match others {
            1 => "1 other function is no virtio".to_owned(),
            _ => format!("{others} other functions are no virtio"),
        };
        output.say(&paint.faint(format!("{are}: --all lists them too")))?;
    }
    if report.iommu == Some(false) {
        output.say(&format!(
            "{}: vdpactl vfio doctor BDF says how to switch it on",
            paint.bad("the IOMMU is off")
        ))?;
    }
    Ok(())
}

fn what(function: &Function) -> String {
    let mut what = function.identity().to_string();
    if let Fact::Is(physical) = &function.physical {
        what += &format!(", of {physical}");
    }
    if let Fact::Is(sriov) = &function.sriov {
        what += &format!(", {} of {} virtual functions", sriov.made, sriov.total);
    }
    what
}
