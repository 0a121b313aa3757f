//! `vdpactl mdev list`: the mediated devices that there are, and are to be.

use serde::Serialize;
use vdpa::mdev::{self, Definition, Definitions, Host, Mediated, PCI_API, Uuid};
use vdpa::vfio::sysfs::Fact;

use crate::failure::{Failure, Verdict};
use crate::mdev::{failed, known, no_parent, printed, shown};
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    devices: Vec<Row>,
    broken: Vec<Broken>,
}

/// A device that is there, or defined, or both. What is null is not there, or cannot be read.
#[derive(Serialize)]
pub(super) struct Row {
    uuid: String,
    parent: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    device_api: Option<String>,
    driver: Option<String>,
    group: Option<u32>,
    vfio_device: Option<String>,
    /// Whether it is there.
    active: bool,
    /// How it is opened, if it is there and may be a virtio function.
    spec: Option<String>,
    defined: Option<Defined>,
}

/// What a device is to be.
#[derive(Serialize)]
struct Defined {
    start: &'static str,
    attrs: Vec<Attribute>,
}

#[derive(Serialize)]
struct Attribute {
    name: String,
    value: String,
}

/// A file that cannot be read.
#[derive(Serialize)]
struct Broken {
    path: String,
    line: Option<usize>,
    error: String,
}

impl Row {
    /// Of a device that is there.
    pub(super) fn active(device: &Mediated, definition: Option<&Definition>) -> Self {
        let kind = device.kind.known();
        let api = kind.and_then(|kind| known(&kind.api));
        let uuid = device.uuid.to_string();
        Self {
            parent: known(&device.parent),
            kind: kind.map(|kind| kind.id.clone()),
            driver: known(&device.driver),
            group: known(&device.iommu_group),
            vfio_device: known(&device.vfio_device),
            active: true,
            spec: (api.as_deref() == Some(PCI_API)).then(|| format!("mdev:{uuid}")),
            device_api: api,
            defined: definition.map(Defined::of),
            uuid,
        }
    }

    /// Of one that is only defined.
    pub(super) fn defined(definition: &Definition) -> Self {
        Self {
            uuid: definition.uuid.to_string(),
            parent: Some(definition.parent.clone()),
            kind: Some(definition.kind.clone()),
            device_api: None,
            driver: None,
            group: None,
            vfio_device: None,
            active: false,
            spec: None,
            defined: Some(Defined::of(definition)),
        }
    }
}

impl Defined {
    fn of(definition: &Definition) -> Self {
        let attributes = definition.attributes.iter();
        Self {
            start: definition.start.name(),
            attrs: attributes
                .map(|(name, value)| Attribute {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
        }
    }
}

/// Lists them.
pub(super) fn run(
    host: &Host,
    definitions: &Definitions,
    only: Option<&str>,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let devices = host.devices().map_err(failed)?;
    let defined = definitions.all().map_err(failed)?;
    let mut rows: Vec<Row> = devices
        .iter()
        .map(|device| Row::active(device, made_of(&defined.whole, device)))
        .collect();
    let is_made = |definition: &Definition| {
        let mut made = devices.iter().filter_map(|d| made_of(&defined.whole, d));
        made.any(|made| std::ptr::eq(made, definition))
    };
    let waiting = defined.whole.iter().filter(|one| !is_made(one));
    rows.extend(waiting.map(Row::defined));
    if let Some(only) = only {
        rows.retain(|row| row.parent.as_deref() == Some(only));
        let parents = host.parents().map_err(failed)?;
        // One that is not there may have something defined.
        if rows.is_empty() && parents.iter().all(|parent| parent.name != only) {
            return Err(no_parent(only, &parents));
        }
    }
    let report = Report {
        devices: rows,
        broken: defined.broken.iter().map(broken).collect(),
    };
    tell(&report, output)?;
    output.object(&report)?;
    Ok(Verdict::Well)
}

/// The definition that a device is made of, if it is.
fn made_of<'d>(definitions: &'d [Definition], device: &Mediated) -> Option<&'d Definition> {
    let kind = device.kind.known().map(|kind| &kind.id);
    definitions.iter().find(|definition| {
        definition.uuid == device.uuid
            && device.parent.known() == Some(&definition.parent)
            && kind == Some(&definition.kind)
    })
}

fn broken(of: &mdev::Broken) -> Broken {
    Broken {
        path: of.path.clone(),
        line: of.line,
        error: of.why.clone(),
    }
}

fn tell(report: &Report, output: &mut Output) -> Result<(), Failure> {
    let paint = output.paint();
    if report.devices.is_empty() {
        output.say(&paint.faint("no mediated device is there or defined"))?;
    } else {
        let heading = line("uuid", "parent", "type", "api", "group") + "state";
        output.say(&paint.heading(heading))?;
    }
    for row in &report.devices {
        let text = |text: &Option<String>| match text {
            Some(text) => shown(&Fact::Is(text.clone())),
            None => "-".to_owned(),
        };
        let group = row.group.map_or("-".to_owned(), |group| group.to_string());
        let line = line(
            &row.uuid,
            &text(&row.parent),
            &text(&row.kind),
            &text(&row.device_api),
            &group,
        );
        let (uuid, rest) = line.split_at(row.uuid.len());
        output.say(&format!("{}{rest}{}", paint.name(uuid), state(row)))?;
    }
    for broken in &report.broken {
        let at = broken
            .line
            .map_or(String::new(), |line| format!(", line {line}"));
        output.say(&format!(
            "{}{at}: {}",
            paint.bad(printed(&broken.path)),
            broken.error
        ))?;
    }
    Ok(())
}

fn line(uuid: &str, parent: &str, kind: &str, api: &str, group: &str) -> String {
    let width = Uuid::nil().to_string().len();
    format!("{uuid:<width$}  {parent:<14}  {kind:<16}  {api:<9}  {group:<5}  ")
}

fn state(row: &Row) -> String {
    let there = match (row.active, &row.driver) {
        (true, Some(_)) => "active",
        (true, None) => "active, no driver",
        (false, _) => "not made",
    };
    match &row.defined {
        Some(defined) => format!("{there}, defined {}", defined.start),
        None => there.to_owned(),
    }
}
