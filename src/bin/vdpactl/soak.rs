//! `vdpactl soak`: traffic through a device that is reset, moved, paused and cut off all the while, with every packet
//! accounted for.
//!
//! ```text
//!   plan ──▶ net or block ──▶ device       plan: what a seed decides          operation: what each may lose
//!                │    ▲                    ledger, sectors: what is right     report: what is told
//!                ▼    │
//!          ledger or sectors
//! ```

mod block;
mod dice;
mod frames;
mod history;
mod ledger;
mod maker;
mod net;
mod operation;
mod plan;
mod report;
mod sectors;
mod trouble;
mod watch;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use vdpa::core::{bits, graph};
use vdpa::net::Ring;
use vdpa::{Deadline, Device, DeviceType, Features};

use self::maker::Maker;
use self::operation::Operation;
use self::plan::{Choices, Plan};
use self::report::{Report, Task};
use self::watch::Watch;
use crate::failure::{Failure, Verdict};
use crate::options::Soak;
use crate::output::Output;
use crate::shell::quoted;

/// How long a device may take for whatever it is asked to do, and traffic may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be soaked of a device, and what cannot.
struct Examined {
    choices: Choices,
    left_out: BTreeMap<&'static str, String>,
}

/// Soaks, and tells what came of it.
pub(crate) fn run(options: &Soak, output: &mut Output) -> Result<Verdict, Failure> {
    let maker = Maker::new(&options.spec).map_err(Failure::input)?;
    let device = maker.open().map_err(Failure::input)?;
    let device_type = device.info().device_type;
    let unit = match device_type {
        DeviceType::Net => "packets",
        DeviceType::Block => "requests",
        other => {
            return Err(Failure::input(anyhow!(
                "{}: a device of type {other} cannot be soaked: network and block devices can",
                options.spec
            )));
        }
    };
    let Examined { choices, left_out } = match device_type {
        DeviceType::Net => net::examine(&maker, &device)?,
        _ => block::examine(&maker, &device)?,
    };
    let choices = choose_ring(choices, options)?;
    let operations = choices.operations.iter().map(|op| op.name()).collect();
    let seed = options.seed.unwrap_or_else(some_seed);
    let every = options
        .every
        .unwrap_or_else(|| Plan::every(options.packets));
    let plan = Plan::new(choices, seed, options.packets, every);
    let task = Task {
        spec: options.spec.clone(),
        seed,
        every,
        plan: plan.digest(),
        planned: options.packets,
        operations,
        left_out,
        repeat: repeat(options, seed, every),
        unit,
    };
    let watch = watch(&task, output.is_json());
    let mut report = Report::begin(output, task)?;
    let soaked = match device_type {
        DeviceType::Net => net::soak(&maker, device, &plan, &mut report, &watch),
        _ => block::soak(&maker, device, &plan, &mut report, &watch),
    };
    match soaked {
        Ok(()) => report.end(None),
        Err(trouble) => report.end(Some(&trouble.to_string())),
    }
}

/// What any device has to choose from.
fn examine(maker: &Maker, device: &Device) -> Examined {
    let offered = graph::acceptable(device.info().device_type, device.offered());
    let caps = device.cap_names();
    let has = |cap: &str| caps.contains(&cap);
    let mut operations = vec![Operation::Reset];
    let mut left_out = BTreeMap::new();
    let mut judge = |operation: Operation, why_not: Option<String>| match why_not {
        None => operations.push(operation),
        Some(why) => {
            left_out.insert(operation.name(), why);
        }
    };
    let lacks = |there: bool, what: &str| (!there).then(|| format!("the device has no {what}"));
    let resets = has("queue-reset") && offered.contains(bits::RING_RESET);
    judge(Operation::QueueReset, lacks(resets, "RING_RESET"));
    judge(Operation::Pause, lacks(has("queue-pause"), "queue pause"));
    judge(
        Operation::Disable,
        lacks(has("queue-enable"), "queue enable"),
    );
    let suspend = lacks(has("suspend"), "suspend");
    judge(Operation::Suspend, suspend.clone());
    let second = suspend.or_else(|| {
        let why = maker.refuses_a_second();
        why.map(|why| format!("no second device can be had beside the first: {why}"))
    });
    judge(Operation::Move, second);
    let rings = Ring::ALL.into_iter();
    Examined {
        choices: Choices {
            rings: rings
                .filter(|ring| offered.contains_all(ring.features()))
                .collect(),
            mergeable: false,
            event_idx: offered.contains(bits::EVENT_IDX),
            indirect: offered.contains(bits::INDIRECT_DESC),
            queues: 1,
            operations,
        },
        left_out,
    }
}

/// The features that a phase does without.
fn declined(configuration: &plan::Configuration) -> Features {
    let mut declined = Features::NONE;
    if !configuration.event_idx {
        declined |= bits::EVENT_IDX;
    }
    if !configuration.indirect {
        declined |= bits::INDIRECT_DESC;
    }
    declined
}

fn choose_ring(choices: Choices, options: &Soak) -> Result<Choices, Failure> {
    let Some(ring) = options.ring else {
        return Ok(choices);
    };
    if !choices.rings.contains(&ring) {
        let have: Vec<&str> = choices.rings.iter().map(|ring| ring.name()).collect();
        let have = have.join(", ");
        return Err(Failure::input(anyhow!(
            "{}: the device does not offer {ring} rings: it has {have}",
            options.spec
        )));
    }
    let rings = vec![ring];
    Ok(Choices { rings, ..choices })
}

/// A seed that nobody chose.
fn some_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // Short enough to be typed.
    now.map_or(1, |now| now.as_micros() as u64 % 1_000_000_000)
}

fn repeat(options: &Soak, seed: u64, every: u64) -> String {
    let Soak { spec, packets, .. } = options;
    let mut line = format!(
        "vdpactl soak {} --packets {packets} --seed {seed} --every {every}",
        quoted(spec)
    );
    if let Some(ring) = options.ring {
        line.push_str(&format!(" --ring {ring}"));
    }
    line
}

/// Ends the command where a call does not come back at all, which nothing within can tell of.
fn watch(task: &Task, json: bool) -> Watch {
    let (spec, repeat) = (task.spec.clone(), task.repeat.clone());
    Watch::new(move |doing| {
        let failure = format!("nothing happened for two minutes: {doing}");
        if json {
            let object = serde_json::json!({
                "schema": 1, "event": "result", "packets": 0, "interruptions": 0, "lost": 0, "duplicated": 0,
                "altered": 0, "dropped_by_definition": 0, "failure": failure, "repeat": repeat,
            });
            // Nobody is left to tell if this fails.
            let _gone = writeln!(io::stdout(), "{object}");
        }
        let _gone = writeln!(
            io::stderr(),
            "error: {spec}: {failure}\nrepeat it with: {repeat}"
        );
    })
}

/// What a device that stands still has to say: its status, and what it has counted.
fn says(device: &Device) -> String {
    let mut said = match device.status() {
        Ok(status) => format!("has the status {status}"),
        Err(error) => format!("says: {error}"),
    };
    let mut counted = Vec::new();
    let read = device.stats(&mut |name, value| {
        let telling = ["dropped", "packets", "kicks", "calls", "errors", "requests"];
        if value > 0 && telling.iter().any(|word| name.contains(word)) {
            counted.push(format!("{name}={value}"));
        }
    });
    if read.is_ok() && !counted.is_empty() {
        said.push_str(" and counted ");
        said.push_str(&counted.join(" "));
    }
    said
}

/// When a device has to be done with whatever it is asked to do now.
fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}
