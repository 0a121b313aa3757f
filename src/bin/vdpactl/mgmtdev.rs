//! `vdpactl mgmtdev show`: what makes devices.

use serde::Serialize;
use vdpa::core::{MgmtClass, MgmtDevice};

use crate::failure::{Failure, Verdict};
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    mgmtdevs: Vec<Parent>,
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
    output.object(&Report { mgmtdevs })?;
    Ok(Verdict::Well)
}

fn parent(mgmtdev: &dyn MgmtDevice) -> Parent {
    Parent {
        name: mgmtdev.name().to_owned(),
        classes: mgmtdev.classes().iter().map(class).collect(),
    }
}

fn class(class: &MgmtClass) -> Class {
    let names = class.features.names(class.device_type);
    let keys = class.keys.iter().map(|key| Key {
        name: key.name,
        values: key.values,
        about: key.about,
    });
    Class {
        what: class.what,
        device_type: class.device_type.to_string(),
        max_queues: class.max_queues,
        features: names.map(|name| name.to_string()).collect(),
        keys: keys.collect(),
    }
}

fn tell(parent: &Parent, class: &Class, output: &mut Output) -> Result<(), Failure> {
    let paint = output.paint();
    let string = format!("{}:{}", parent.name, class.what);
    output.say(&format!(
        "{}  a {} device, up to {} queues",
        paint.name(string),
        class.device_type,
        class.max_queues
    ))?;
    let width = class
        .keys
        .iter()
        .map(|key| key.name.len())
        .max()
        .unwrap_or(0);
    for key in &class.keys {
        output.say(&format!(
            "  {:<width$}  {}  {}",
            key.name,
            key.about,
            paint.faint(format!("({})", key.values)),
        ))?;
    }
    Ok(())
}
