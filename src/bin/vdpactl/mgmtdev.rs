//! `vdpactl mgmtdev show`: what makes devices.

use serde::Serialize;
use vdpa::core::{MgmtClass, MgmtDevice, faults};

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::words::filled;

/// Characters in a line.
const WIDTH: usize = 100;

#[derive(Serialize)]
struct Report {
    mgmtdevs: Vec<Parent>,
    /// What stands around any device.
    layers: Vec<Around>,
    /// What can go wrong with any device, by the key `fault`.
    faults: Vec<Fault>,
}

#[derive(Serialize)]
struct Around {
    name: String,
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Fault {
    name: &'static str,
    about: &'static str,
}

#[derive(Serialize)]
struct Parent {
    name: String,
    classes: Vec<Class>,
}

#[derive(Serialize)]
struct Class {
    what: &'static str,
    #[serde(rename = "type")]
    device_type: String,
    max_queues: u16,
    features: Vec<String>,
    keys: Vec<Key>,
    faults: Vec<Fault>,
}

#[derive(Serialize)]
struct Key {
    name: &'static str,
    values: &'static str,
    about: &'static str,
}

/// Lists the parents that are compiled in, and the device strings they take.
pub(crate) fn show(output: &mut Output) -> Result<Verdict, Failure> {
    let registry = vdpa::registry();
    let mgmtdevs: Vec<Parent> = registry.parents().map(parent).collect();
    for parent in &mgmtdevs {
        for class in &parent.classes {
            tell(parent, class, output)?;
        }
    }
    let layers = registry.layers().map(|layer| Around {
        name: layer.name().to_owned(),
        keys: keys(layer.keys()),
    });
    let report = Report {
        mgmtdevs,
        layers: layers.collect(),
        faults: faults(vdpa::layer::faults::KINDS),
    };
    tell_layers(&report, output)?;
    output.object(&report)?;
    Ok(Verdict::Well)
}

fn keys(keys: &[vdpa::core::Key]) -> Vec<Key> {
    let keys = keys.iter().map(|key| Key {
        name: key.name,
        values: key.values,
        about: key.about,
    });
    keys.collect()
}

fn faults(kinds: &[faults::Kind]) -> Vec<Fault> {
    let kinds = kinds.iter().map(|kind| Fault {
        name: kind.name,
        about: kind.about,
    });
    kinds.collect()
}

fn parent(mgmtdev: &dyn MgmtDevice) -> Parent {
    Parent {
        name: mgmtdev.name().to_owned(),
        classes: mgmtdev
            .classes()
            .iter()
            .map(|of| class(mgmtdev, of))
            .collect(),
    }
}

fn class(mgmtdev: &dyn MgmtDevice, class: &MgmtClass) -> Class {
    let names = class.features.names(class.device_type);
    Class {
        what: class.what,
        device_type: class.device_type.to_string(),
        max_queues: class.max_queues,
        features: names.map(|name| name.to_string()).collect(),
        keys: keys(class.keys),
        faults: faults(mgmtdev.faults(class.what)),
    }
}

fn tell(parent: &Parent, class: &Class, output: &mut Output) -> Result<(), Failure> {
    let paint = output.paint();
    let string = format!("{}:{}", parent.name, class.what);
    let queues = match class.max_queues {
        // No limit of the parent's.
        u16::MAX => "as many as it has".to_owned(),
        most => format!("at most {most}"),
    };
    output.say(&format!(
        "{}  type {}, queues: {queues}",
        paint.name(string),
        class.device_type,
    ))?;
    tell_keys(&class.keys, output)?;
    if !class.faults.is_empty() {
        tell_faults("faults of its own", &class.faults, output)?;
    }
    Ok(())
}

fn tell_layers(report: &Report, output: &mut Output) -> Result<(), Failure> {
    output.say(&format!(
        "{}  around any device",
        output.paint().name("layers")
    ))?;
    for layer in &report.layers {
        tell_keys(&layer.keys, output)?;
    }
    tell_faults("faults of any device", &report.faults, output)
}

fn tell_keys(keys: &[Key], output: &mut Output) -> Result<(), Failure> {
    let paint = output.paint();
    let width = keys.iter().map(|key| key.name.len()).max().unwrap_or(0);
    for key in keys {
        let values = format!("({})", key.values);
        let line = format!("  {:<width$}  {}", key.name, key.about);
        if line.chars().count() + 2 + values.chars().count() <= WIDTH {
            output.say(&format!("{line}  {}", paint.faint(values)))?;
            continue;
        }
        output.say(&line)?;
        for values in filled(values.split(' '), WIDTH - width - 4) {
            output.say(&format!("  {:<width$}  {}", "", paint.faint(values)))?;
        }
    }
    Ok(())
}

fn tell_faults(which: &str, faults: &[Fault], output: &mut Output) -> Result<(), Failure> {
    output.say(&format!("  {which}:"))?;
    for line in filled(faults.iter().map(|fault| fault.name), 84) {
        output.say(&format!("    {line}"))?;
    }
    Ok(())
}
