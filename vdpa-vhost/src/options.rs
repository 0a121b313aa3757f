//! What a device string says of a back end.

use std::path::PathBuf;
use std::time::Duration;

use vdpa_core::config::Mac;
use vdpa_core::spec::{DeviceSpec, Value};
use vdpa_core::{DeviceType, Key, Result};

use crate::VhostError;

/// The keys of a device string.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "type",
        values: "net, blk, or another virtio device's name",
        about: "what the back end is, which it does not say itself; has to be given",
    },
    Key {
        name: "queues",
        values: "1 to 256",
        about: "queues, of other types than net and blk; default: as many as the back end says",
    },
    Key {
        name: "queue_size",
        values: "1 to 32768",
        about: "the largest queue that the back end takes; default 256 for blk and rng, else 1024",
    },
    Key {
        name: "mac",
        values: "MAC address",
        about: "the address of a network device whose back end has no configuration; default: none",
    },
    Key {
        name: "server",
        values: "on or off",
        about: "listen at PATH and wait for the back end to connect; default off",
    },
    Key {
        name: "timeout",
        values: "1 to 3600",
        about: "seconds that the back end has for an answer, and to connect to a server; default 5",
    },
];

/// The most queues that there can be: messages that bring an eventfd have 8 bits for the number of its queue.
pub(crate) const MOST_QUEUES: u16 = 256;

/// How to reach a back end, and what to take it for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Its socket.
    pub path: PathBuf,
    /// What it is.
    pub device_type: DeviceType,
    /// How many queues it has, 1 to 256, where its configuration does not say; `None`: as many as it says otherwise, or 1.
    pub queues: Option<u16>,
    /// The largest queue that it takes, in descriptors.
    pub queue_size: u16,
    /// The address of a network device whose back end has no configuration.
    pub mac: Option<Mac>,
    /// Whether it connects to us: the socket is made, and one back end is waited for.
    pub server: bool,
    /// How long it has for an answer, or to connect.
    pub timeout: Duration,
}

impl Options {
    /// A back end that listens at `path`, with the defaults of a device string.
    pub fn new(path: impl Into<PathBuf>, device_type: DeviceType) -> Self {
        Self {
            path: path.into(),
            device_type,
            queues: None,
            queue_size: largest(device_type),
            mac: None,
            server: false,
            timeout: Duration::from_secs(5),
        }
    }

    /// Reads a device string.
    ///
    /// # Errors
    /// When something in it is unknown or out of range, or the type is missing.
    pub fn of(spec: &DeviceSpec) -> Result<Self> {
        let path = PathBuf::from(spec.what());
        let mut keys = spec.keys();
        let device_type = keys.take_with("type", |value| named(value))?;
        let queue_size = keys.take_in("queue_size", 1..=32768)?;
        let server = keys.take("server")?;
        let timeout = keys.take_in("timeout", 1..=3600u64)?;
        // What is of no use to a type is one key too many there.
        let mac = match device_type {
            Some(DeviceType::Net) | None => keys.take("mac")?,
            Some(_) => None,
        };
        let queues = match device_type {
            Some(DeviceType::Net | DeviceType::Block) => None,
            _ => keys.take_in("queues", 1..=MOST_QUEUES)?,
        };
        let legal: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        keys.finish(&legal)?;
        let Some(device_type) = device_type else {
            return Err(VhostError::TypeMissing { path }.into());
        };
        let plain = Self::new(path, device_type);
        Ok(Self {
            queues,
            queue_size: queue_size.unwrap_or(plain.queue_size),
            mac,
            server: server.unwrap_or(plain.server),
            timeout: timeout.map_or(plain.timeout, Duration::from_secs),
            ..plain
        })
    }
}

/// The largest queue that a back end takes which says nothing of it: what the simulated device of the type has, so that one
/// that is served is driven without a word. Those of the others, and of virtiofsd, take 1024.
fn largest(device_type: DeviceType) -> u16 {
    match device_type {
        DeviceType::Block | DeviceType::Entropy => 256,
        _ => 1024,
    }
}

fn named(value: &Value<'_>) -> std::result::Result<DeviceType, vdpa_core::SpecError> {
    value.text().parse().map_err(|_| {
        let names = DeviceType::ALL.iter();
        value.unknown(names.filter_map(|device_type| device_type.name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdpa_core::{Error, ErrorKind};

    fn read(text: &str) -> Result<Options> {
        Options::of(&DeviceSpec::parse(text).unwrap())
    }

    #[test]
    fn a_device_string_says_how_to_reach_a_back_end() {
        let short = read("vhost-user:/run/a.sock,type=blk").unwrap();
        assert_eq!(short, Options::new("/run/a.sock", DeviceType::Block));
        let long = "vhost-user:a,type=net,queue_size=256,mac=52:54:00:00:00:01,server=on,timeout=7";
        let long = read(long).unwrap();
        assert_eq!((long.queue_size, long.server), (256, true));
        assert_eq!(
            read("vhost-user:a,type=vsock,queues=3").unwrap().queues,
            Some(3)
        );
        assert_eq!(long.timeout, Duration::from_secs(7));
        let size = |spec| read(spec).unwrap().queue_size;
        assert_eq!(size("vhost-user:a,type=net"), 1024);
        assert_eq!(size("vhost-user:a,type=blk"), 256);
        assert_eq!(size("vhost-user:a,type=blk,queue_size=1024"), 1024);
        assert!(long.mac.is_some());
    }

    #[test]
    fn what_is_wrong_in_a_device_string_is_pointed_at() {
        let part = |text: &str| match read(text) {
            Err(Error::Spec(error)) => error.part().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(part("vhost-user:a,type=nic"), "nic");
        assert_eq!(part("vhost-user:a,type=fs,queues=257"), "257");
        assert_eq!(part("vhost-user:a,type=net,queues=2"), "queues");
        assert_eq!(part("vhost-user:a,type=net,queue_size=65536"), "65536");
        assert_eq!(part("vhost-user:a,type=net,timeout=0"), "0");
        assert_eq!(part("vhost-user:a,type=blk,mac=52:54:00:00:00:01"), "mac");
        assert_eq!(part("vhost-user:a,type=net,mtu=1500"), "mtu");
    }

    #[test]
    fn a_string_without_a_type_says_what_to_add() {
        let error = read("vhost-user:/run/a.sock").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        let text = error.to_string();
        assert!(
            text.contains("type=net") && text.contains("/run/a.sock"),
            "{text}"
        );
    }
}
