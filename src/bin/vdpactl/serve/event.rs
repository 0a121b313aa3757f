//! What happens to a device that is served, as objects and as words.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::ErrorKind;

use serde::Serialize;
use vdpa::Device;
use vdpa::core::{Chain, DeviceType, Event, Features};
use vdpa::export::vhost_user::{EndedBy, Notice, ServerError};
use vdpa::net::Ring;

use crate::number::count;
use crate::paint::Paint;

/// Something that is told. Each is an object with its device's path and string; its name is the event.
#[derive(Serialize, Debug)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Told {
    /// A front end can connect.
    Listening(Offer),
    /// A front end is looked for where it is to listen.
    Connecting(Offer),
    /// Nobody can be connected to there yet, or let in.
    Waiting {
        why: String,
        /// Whether there is nobody, as far as the system says.
        #[serde(skip)]
        nobody: bool,
    },
    /// A front end is there.
    Connected { pid: Option<i32>, uid: Option<u32> },
    /// It drives the device.
    Running {
        queues: u16,
        ring: &'static str,
        #[serde(serialize_with = "names")]
        features: (Features, DeviceType),
    },
    /// It stopped the device, and is still there.
    Halted,
    /// It was cut off.
    CutOff { why: String },
    /// It left.
    Disconnected,
    /// What the device reports.
    Device { what: &'static str, why: String },
    /// A disk has the size that its image has now.
    Resized { bytes: u64 },
    /// It cannot have that.
    NotResized { why: String },
    /// What the device has counted.
    Statistics {
        counters: BTreeMap<String, u64>,
        per_second: BTreeMap<&'static str, f64>,
    },
    /// Events that could not be told, since nobody read what was told before.
    Missed { events: u64 },
    /// The device is served no more.
    Stopped {
        by: &'static str,
        why: Option<String>,
        front_ends: u64,
        cut_off: u64,
    },
}

/// What front ends can have.
#[derive(Serialize, Debug)]
pub(super) struct Offer {
    #[serde(rename = "type")]
    device_type: String,
    queues: u16,
    max_size: u16,
}

impl Told {
    /// What is told of a device first.
    pub(super) fn first(device: &Device, client: bool) -> Self {
        let info = device.info();
        let limits = device.queue_limits(vdpa::core::QueueIndex::new(0));
        let offer = Offer {
            device_type: info.device_type.to_string(),
            queues: info.queues,
            max_size: limits.map_or(0, |limits| limits.max_size),
        };
        if client {
            Self::Connecting(offer)
        } else {
            Self::Listening(offer)
        }
    }

    /// What a server tells, if it is told on.
    pub(super) fn of(notice: &Notice<'_>, device: DeviceType) -> Option<Self> {
        Some(match notice {
            Notice::Waiting { why, .. } => Self::Waiting {
                why: why.to_string(),
                nobody: matches!(
                    why.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ),
            },
            Notice::Connected { peer } => Self::Connected {
                pid: peer.map(|peer| peer.pid),
                uid: peer.map(|peer| peer.uid),
            },
            Notice::Running { features, queues } => Self::Running {
                queues: *queues,
                ring: ring(*features),
                features: (*features, device),
            },
            Notice::Stopped => Self::Halted,
            Notice::CutOff { why } => Self::CutOff {
                why: Chain(*why).to_string(),
            },
            Notice::Disconnected => Self::Disconnected,
            Notice::Device { event } => Self::reported(event)?,
            Notice::Stats { counters } => Self::Statistics {
                counters: counters.iter().cloned().collect(),
                per_second: BTreeMap::new(),
            },
            // The first was told when all devices could be connected to.
            _ => return None,
        })
    }

    fn reported(event: &Event) -> Option<Self> {
        let (what, why) = match event {
            Event::NeedsReset { why, .. } => ("needs_reset", why.clone()),
            Event::Broken { why } => ("broken", why.clone()),
            Event::Gone => ("gone", "the device is gone".to_owned()),
            Event::RemoveRequested => {
                ("remove_requested", "its parent asks for it back".to_owned())
            }
            Event::Fault { at, want, .. } => ("fault", format!("no access to {at}: {want:?}")),
            _ => return None,
        };
        Some(Self::Device { what, why })
    }

    /// How a server ended.
    pub(super) fn stopped(
        ended: &Result<EndedBy, ServerError>,
        front_ends: u64,
        cut_off: u64,
    ) -> Self {
        let (by, why) = match ended {
            Ok(EndedBy::Stop) => ("signal", None),
            Ok(EndedBy::RemoveRequested) => ("remove_requested", None),
            Ok(_) => ("front_end", None),
            Err(error) => ("failure", Some(Chain(error).to_string())),
        };
        Self::Stopped {
            by,
            why,
            front_ends,
            cut_off,
        }
    }

    /// In words: what it is, and more of it.
    pub(super) fn words(&self, paint: Paint) -> (String, String) {
        let plain = |what: &str| paint.name(format!("{what:<12}"));
        let good = |what: &str| paint.good(format!("{what:<12}"));
        let bad = |what: &str| paint.bad(format!("{what:<12}"));
        match self {
            Self::Listening(offer) => (good("listening"), offer.words()),
            Self::Connecting(offer) => (good("connecting"), offer.words()),
            Self::Waiting { why, nobody } => {
                let nobody = if *nobody { "nobody listens yet: " } else { "" };
                (plain("waiting"), format!("{nobody}{why}"))
            }
            Self::Connected { pid, uid } => {
                let mut words = String::new();
                for (what, number) in [
                    ("process", pid.map(i64::from)),
                    ("user", uid.map(i64::from)),
                ] {
                    if let Some(number) = number {
                        let apart = if words.is_empty() { "" } else { ", " };
                        // A string takes everything.
                        let _infallible = write!(words, "{apart}{what} {number}");
                    }
                }
                (plain("connected"), words)
            }
            Self::Running { queues, ring, .. } => {
                let queues = count(u64::from(*queues), "queue");
                (good("running"), format!("{queues}, {ring} rings"))
            }
            Self::Halted => (
                plain("halted"),
                "by the front end, which is still there".to_owned(),
            ),
            Self::CutOff { why } => (bad("cut off"), why.clone()),
            Self::Disconnected => (plain("disconnected"), String::new()),
            Self::Device { what, why } => (bad(&what.replace('_', " ")), why.clone()),
            Self::Resized { bytes } => (good("resized"), count(*bytes, "byte")),
            Self::NotResized { why } => (bad("not resized"), why.clone()),
            Self::Statistics { per_second, .. } => {
                (plain("statistics"), super::traffic::words(per_second))
            }
            Self::Missed { events } => {
                let events = count(*events, "event");
                (bad("missed"), format!("{events}: the output was not read"))
            }
            Self::Stopped {
                why,
                front_ends,
                cut_off,
                ..
            } => {
                let served = count(*front_ends, "front end");
                let mut words = format!("{served} served, {cut_off} cut off");
                if let Some(why) = why {
                    // As above.
                    let _infallible = write!(words, ": {why}");
                    return (bad("stopped"), words);
                }
                (plain("stopped"), words)
            }
        }
    }
}

impl Offer {
    fn words(&self) -> String {
        let queues = count(u64::from(self.queues), "queue");
        format!(
            "{} with {queues} of up to {}",
            self.device_type, self.max_size
        )
    }
}

/// Which rings were negotiated.
fn ring(features: Features) -> &'static str {
    let fits = |ring: &&Ring| features.contains_all(ring.features());
    let last = Ring::ALL.iter().rev().find(fits);
    last.copied().unwrap_or_default().name()
}

fn names<S: serde::Serializer>(
    (features, device): &(Features, DeviceType),
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(features.names(*device).map(|name| name.to_string()))
}
