//! From a socket to a device: who the back end is, and what both sides agree on.

use std::sync::{Arc, Mutex};

use vdpa_core::config::{BlockConfig, NetConfig};
use vdpa_core::{CallKind, DeviceInfo, DeviceType, Features, KickKind, bits};
use vdpa_vhost_user::{F_PROTOCOL_FEATURES, FromBack, FrontMessage, ProtocolFeatures};

use crate::config::Config;
use crate::device::Control;
use crate::line::Line;
use crate::memory::Memory;
use crate::options::MOST_QUEUES;
use crate::queue::{Queue, Switch};
use crate::roles::Roles;
use crate::watch::Heard;
use crate::{Options, VhostError, VhostUser, features, socket};

type Result<T, E = VhostError> = std::result::Result<T, E>;

/// What is agreed on where the back end has it.
const USED: ProtocolFeatures = ProtocolFeatures::MQ
    .union(ProtocolFeatures::REPLY_ACK)
    .union(ProtocolFeatures::BACKEND_REQ)
    .union(ProtocolFeatures::CONFIG)
    .union(ProtocolFeatures::RESET_DEVICE)
    .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(ProtocolFeatures::STATUS)
    .union(ProtocolFeatures::RARP);

impl VhostUser {
    /// Connects to a back end, or waits for one, and asks what it is.
    ///
    /// # Errors
    /// When there is none, it does not answer, or it cannot be what it is taken for.
    pub fn open(options: Options) -> Result<Self> {
        let stream = socket::open(&options)?;
        let line = Line::new(&options.path, stream, options.timeout)?;
        let theirs = line.value(&FrontMessage::GetFeatures)?;
        let lacks = |what, cure| VhostError::Lacks {
            path: options.path.clone(),
            what,
            cure,
        };
        if !Features::from_u64(theirs).contains(bits::VERSION_1) {
            let cure = "it is of before virtio 1.0, which nothing here drives";
            return Err(lacks("VERSION_1", cure));
        }
        let protocol = agreed(&line, theirs)?;
        let switch = match protocol {
            Some(_) => Switch::There,
            None => Switch::Missing,
        };
        let protocol = protocol.unwrap_or_default();
        line.ask(&FrontMessage::SetOwner)?;
        let channel = channel(&line, protocol)?;
        let memory = memory(&line, protocol)?;

        let device_type = options.device_type;
        let has_config = protocol.contains(ProtocolFeatures::CONFIG);
        let mut offered = features::carried(device_type, theirs, has_config);
        let config = match (has_config, device_type) {
            (true, _) => Config::theirs(&line, device_type, offered)?,
            (false, DeviceType::Block) => {
                let cure = "nobody can say how large the disk is; is type= right?";
                return Err(lacks("a configuration (protocol feature CONFIG)", cure));
            }
            (false, _) => {
                let (config, more) = Config::ours(options.mac);
                offered = offered.union(more);
                config
            }
        };
        let mut bytes = vec![0; usize::try_from(config.len()).unwrap_or(0)];
        config.read(&line, 0, &mut bytes)?;
        check(&options, offered, &bytes)?;
        offered = sensible(device_type, offered, &bytes);
        let told = match protocol.contains(ProtocolFeatures::MQ) {
            true => u16::try_from(line.value(&FrontMessage::GetQueueNum)?).unwrap_or(MOST_QUEUES),
            false => 1,
        };
        let roles = Roles::new(device_type, offered, &bytes, options.queues.unwrap_or(told));
        let count = roles.count(offered);
        if count > MOST_QUEUES {
            return Err(VhostError::Queues {
                path: options.path,
                have: count,
                most: MOST_QUEUES,
            });
        }

        let line = Arc::new(line);
        let heard = Heard::new(Arc::clone(&line)).map_err(line.system("watch it"))?;
        let info = DeviceInfo {
            name: options.path.display().to_string(),
            device_type,
            vendor: 0,
            queues: count,
            groups: 1,
            asids: 1,
            config_size: config.len(),
            kicks: KickKind::Given,
            calls: CallKind::EventFd,
        };
        let control = Control::new((0..count).map(|_| Queue::default()).collect());
        Ok(Self {
            watch: Mutex::default(),
            channel: Mutex::new(channel),
            line,
            heard,
            info,
            offered,
            theirs,
            protocol,
            switch,
            queue_size: options.queue_size,
            roles,
            config,
            memory,
            control: Mutex::new(control),
        })
    }
}

/// The protocol features agreed on, if there are any.
fn agreed(line: &Line, theirs: u64) -> Result<Option<ProtocolFeatures>> {
    if theirs & F_PROTOCOL_FEATURES == 0 {
        return Ok(None);
    }
    let there = line.value(&FrontMessage::GetProtocolFeatures)?;
    let mut used = ProtocolFeatures::from_bits_retain(there) & USED;
    // A change of the configuration is told over the channel, and nothing else is.
    if !used.contains(ProtocolFeatures::CONFIG) {
        used.remove(ProtocolFeatures::BACKEND_REQ);
    }
    line.ask(&FrontMessage::SetProtocolFeatures(used))?;
    Ok(Some(used))
}

/// What the back end says things over, where it does.
fn channel(line: &Line, protocol: ProtocolFeatures) -> Result<Option<FromBack>> {
    if !protocol.contains(ProtocolFeatures::BACKEND_REQ) {
        return Ok(None);
    }
    let acknowledged = protocol.contains(ProtocolFeatures::REPLY_ACK);
    let (ours, theirs) = FromBack::pair(acknowledged)
        .map_err(|e| line.system("make a channel for it")(std::io::Error::other(e)))?;
    line.ask(&FrontMessage::SetBackendReqFd(theirs))?;
    Ok(Some(ours))
}

fn memory(line: &Line, protocol: ProtocolFeatures) -> Result<Memory> {
    if !protocol.contains(ProtocolFeatures::CONFIGURE_MEM_SLOTS) {
        return Ok(Memory::new(None));
    }
    let slots = line.value(&FrontMessage::GetMaxMemSlots)?;
    Ok(Memory::new(Some(u32::try_from(slots).unwrap_or(u32::MAX))))
}

/// Whether a device of this type may show such a configuration. One of another type hardly does.
fn check(options: &Options, offered: Features, config: &[u8]) -> Result<()> {
    let checked = match options.device_type {
        DeviceType::Net => NetConfig::from_bytes(config).check(offered),
        DeviceType::Block => BlockConfig::from_bytes(config).check(offered),
        _ => Ok(()),
    };
    checked.map_err(|e| VhostError::Config {
        path: options.path.clone(),
        device_type: options.device_type,
        why: e.to_string(),
    })
}

/// Without limits that limit to nothing: qemu-storage-daemon offers SIZE_MAX with a `size_max` of 0.
fn sensible(device_type: DeviceType, offered: Features, config: &[u8]) -> Features {
    let disk = BlockConfig::from_bytes(config);
    match device_type {
        DeviceType::Block if disk.size_max() == 0 => offered.without(bits::block::SIZE_MAX),
        _ => offered,
    }
}
