//! `vdpactl dev show`: one device.

use serde::Serialize;
use serde_json::{Map, Value};
use vdpa::core::config;
use vdpa::core::{Device, KickKind, MgmtDevice, QueueIndex};

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::words::filled;

#[derive(Serialize)]
struct Report {
    spec: String,
    #[serde(rename = "type")]
    device_type: String,
    vendor: u32,
    features: Vec<String>,
    kicks: &'static str,
    queues: Vec<Queue>,
    config: Map<String, Value>,
    capabilities: Vec<&'static str>,
}

#[derive(Serialize, PartialEq, Eq)]
struct Queue {
    max_size: u16,
    group: u32,
}

/// Shows the device of this string. No driver is set to work on it.
pub(crate) fn show(spec: &str, output: &mut Output) -> Result<Verdict, Failure> {
    let registry = vdpa::registry();
    let device = registry.open(spec).map_err(Failure::input)?;
    // As the parent has it: with what was chosen where the string left it open.
    let name = &device.info().name;
    let entries = registry.parents().flat_map(MgmtDevice::devices);
    let made = entries.into_iter().find(|entry| entry.name == *name);
    let spec = made.map_or(spec.to_owned(), |entry| entry.spec);
    let report = report(&spec, &device)?;
    tell(&report, output)?;
    output.object(&report)?;
    Ok(Verdict::Well)
}

fn report(spec: &str, device: &Device) -> Result<Report, Failure> {
    let info = device.info();
    let offered = device.offered();
    let queues: Result<Vec<Queue>, vdpa::Error> = (0..info.queues)
        .map(|queue| {
            let limits = device.queue_limits(QueueIndex::new(queue))?;
            Ok(Queue {
                max_size: limits.max_size,
                group: limits.group.get(),
            })
        })
        .collect();
    let mut bytes = vec![0; info.config_size as usize];
    device.read_config(0, &mut bytes)?;
    let fields = config::show(info.device_type, offered, &bytes);
    Ok(Report {
        spec: spec.to_owned(),
        device_type: info.device_type.to_string(),
        vendor: info.vendor,
        features: offered
            .names(info.device_type)
            .map(|name| name.to_string())
            .collect(),
        kicks: kicks(info.kicks),
        queues: queues?,
        config: fields
            .map(|(field, value)| (field.name().to_owned(), json(value)))
            .collect(),
        capabilities: device.cap_names(),
    })
}

/// What a driver's kick is.
fn kicks(kicks: KickKind) -> &'static str {
    match kicks {
        KickKind::Taken => "doorbell",
        KickKind::Called => "syscall",
        KickKind::Given => "eventfd",
    }
}

/// The same, for people.
fn kicks_are(kicks: &str) -> &str {
    match kicks {
        "syscall" => "by a system call each, which is slow",
        "eventfd" => "by a doorbell, or an eventfd that is given",
        _ => "by a doorbell",
    }
}

fn json(value: config::Value) -> Value {
    match value {
        config::Value::Number(number) => number.into(),
        config::Value::Mac(mac) => mac.to_string().into(),
    }
}

fn tell(report: &Report, output: &mut Output) -> Result<(), Failure> {
    /// The columns of the values.
    const WIDTH: usize = 84;

    let paint = output.paint();
    let fields = report.config.iter().map(|(name, value)| {
        match value {
            Value::String(text) => format!("{name}={text}"),
            // virtio 1.4 §5.1.4: how a device says that it does not know.
            _ if name == "speed" && *value == u32::MAX => "speed=unknown".to_owned(),
            _ => format!("{name}={value}"),
        }
    });
    let rows = [
        ("device", vec![report.spec.clone()]),
        (
            "type",
            vec![format!(
                "{}, vendor {:#06x}",
                report.device_type, report.vendor
            )],
        ),
        ("features", filled(&report.features, WIDTH)),
        ("kicks", vec![kicks_are(report.kicks).to_owned()]),
        ("queues", queues(&report.queues)),
        ("config", filled(fields, WIDTH)),
        ("can", filled(&report.capabilities, WIDTH)),
    ];
    for (name, lines) in rows {
        let mut name = format!("{name:<10}");
        for line in lines {
            output.say(&format!("{} {line}", paint.name(&name)))?;
            name = " ".repeat(10);
        }
    }
    Ok(())
}

/// Neighbours that are alike share a line: a device may have hundreds of queues.
fn queues(queues: &[Queue]) -> Vec<String> {
    let mut first = 0;
    let mut lines = Vec::new();
    for alike in queues.chunk_by(|a, b| a == b) {
        let last = first + alike.len() - 1;
        let which = match alike.len() {
            1 => format!("{first}"),
            _ => format!("{first}..={last}"),
        };
        let Queue { max_size, group } = alike[0];
        lines.push(format!("{which:<8} size to {max_size}, group {group}"));
        first = last + 1;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_are_alike_share_a_line() {
        let queue = |group| Queue {
            max_size: 256,
            group,
        };
        assert_eq!(
            queues(&[queue(0), queue(0), queue(1)]),
            [
                "0..=1    size to 256, group 0",
                "2        size to 256, group 1"
            ]
        );
        assert!(queues(&[]).is_empty());
    }
}
