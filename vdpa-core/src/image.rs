//! The state of a whole device, as bytes that another process can go on from.
//!
//! ```text
//!  "vdpa" | version u16 = 1 | flags u16 = 0 | length u32, of all | device type u32 | status u8, 0 u8[3]
//!         | features u128 | handled elsewhere u128 | groups u32, queues u32, class state: bytes u32
//!  a group    address space u32
//!  a queue    index u16, size u16, flags u16, 0 u16 | descriptor, driver, device area u64 | avail u16, used u16, 0 u32
//!  class state
//!  CRC-32 u32, of all before it
//! ```
//! All little-endian. The bytes come from anywhere: everything is checked, and nothing may be left over. What is not
//! here: memory, which whoever restores maps, at the same addresses; eventfds and closures, which it gives anew; and the
//! positions of the driver, which goes on by itself.

mod bytes;
mod error;

use vdpa_ring::{Pos, QueueState};

use crate::{Asid, DeviceType, Features, QueueConfig, QueueIndex, Status};
use vdpa_mem::Iova;

pub use error::ImageError;

use bytes::Rest;

const MAGIC: [u8; 4] = *b"vdpa";
const VERSION: u16 = 1;

// The flags of a queue.
const ENABLED: u16 = 1;
/// It has a state.
const STATE: u16 = 1 << 1;
/// The state is of a packed ring.
const PACKED: u16 = 1 << 2;
/// The state's used position is known.
const USED: u16 = 1 << 3;
const KNOWN: u16 = (1 << 4) - 1;

/// The state of a device that does not run, complete: made by [`Device::save`](crate::Device::save) or from bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceImage {
    pub(crate) device_type: DeviceType,
    pub(crate) status: Status,
    pub(crate) features: Features,
    pub(crate) handled: Features,
    pub(crate) groups: Vec<Asid>,
    pub(crate) queues: Vec<(QueueIndex, QueueConfig)>,
    pub(crate) class: Vec<u8>,
}

impl DeviceImage {
    /// What kind of device it is of.
    pub fn device_type(&self) -> DeviceType {
        self.device_type
    }

    /// The status byte, as the driver saw it.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The features negotiated.
    pub fn features(&self) -> Features {
        self.features
    }

    /// The address space of each queue group.
    pub fn groups(&self) -> &[Asid] {
        &self.groups
    }

    /// The queues that were started, with where they stood.
    pub fn queues(&self) -> &[(QueueIndex, QueueConfig)] {
        &self.queues
    }

    /// The state of the class, as [`ClassState::save`](crate::ClassState::save) gave it.
    pub fn class_state(&self) -> &[u8] {
        &self.class
    }

    /// Puts an image together of what something else than [`to_bytes`](Self::to_bytes) carried, such as the device parts
    /// of virtio 1.4 §2.14. All queue groups are in the first address space.
    ///
    /// * `status`, `features`: as the driver sees them, `handled` beside them: see
    ///   [`accept_beside`](crate::Device::accept_beside)
    /// * `queues`: ascending
    /// * `class`: the class state, empty for none
    ///
    /// # Errors
    /// When no device is left so.
    pub fn assemble(
        device_type: DeviceType,
        status: Status,
        [features, handled]: [Features; 2],
        queues: Vec<(QueueIndex, QueueConfig)>,
        class: Vec<u8>,
    ) -> Result<Self, ImageError> {
        let image = Self {
            device_type,
            status,
            features,
            handled,
            groups: Vec::new(),
            queues,
            class,
        };
        // The same checks as for what comes as bytes.
        Self::parse(&image.to_bytes())
    }

    /// Reads an image.
    ///
    /// * `from`: from anywhere; treated as hostile
    ///
    /// # Errors
    /// When the bytes are no image, of another version, cut, damaged, or not as a device leaves them; with where.
    pub fn parse(from: &[u8]) -> Result<Self, ImageError> {
        let mut rest = Rest::new(from);
        let magic: [u8; 4] = rest.take("magic number")?;
        if magic != MAGIC {
            return Err(ImageError::Magic { found: magic });
        }
        let version = rest.u16("version")?;
        if version != VERSION {
            return Err(ImageError::Version { found: version });
        }
        let flags = rest.u16("flags")?;
        let length = rest.u32("length")?;
        if u64::from(length) != from.len() as u64 {
            return Err(ImageError::Length {
                said: length,
                found: from.len(),
            });
        }
        let (body, sum) = from.split_last_chunk().ok_or(ImageError::Truncated {
            what: "checksum",
            at: from.len(),
        })?;
        let (found, computed) = (u32::from_le_bytes(*sum), crc32fast::hash(body));
        if found != computed {
            return Err(ImageError::Checksum { found, computed });
        }
        // From here on damage is not chance.
        rest.end_at(body.len());
        if flags != 0 {
            return Err(ImageError::illegal("flags", flags));
        }
        let id = rest.u32("device type")?;
        let device_type = DeviceType::from_id(id);
        let [status, pad @ ..] = rest.take::<4>("status")?;
        let features = Features::from_u128(u128::from_le_bytes(rest.take("features")?));
        let handled = Features::from_u128(u128::from_le_bytes(rest.take("features")?));
        let status = self::status(status, pad)?;
        let groups = rest.u32("groups")?;
        let queues = rest.u32("queues")?;
        let class_len = rest.u32("class state")?;
        let groups = (0..groups)
            .map(|_| rest.u32("groups").map(Asid::new))
            .collect::<Result<Vec<_>, _>>()?;
        let mut list: Vec<(QueueIndex, QueueConfig)> = Vec::new();
        for _ in 0..queues {
            let (index, config) = queue(&mut rest)?;
            // Whoever took them is gone, and nobody would give them back.
            if config.state.is_some_and(in_flight) {
                let queue = index.get();
                return Err(ImageError::InFlight { queue });
            }
            if list.last().is_some_and(|(last, _)| *last >= index) {
                return Err(ImageError::illegal("order of its queues", index.get()));
            }
            list.push((index, config));
        }
        let class = rest.bytes(class_len, "class state")?.to_vec();
        rest.finish()?;
        let started = features != Features::NONE || !list.is_empty() || !class.is_empty();
        if started && !status.contains(Status::FEATURES_OK) {
            return Err(ImageError::illegal("status", status.bits()));
        }
        Ok(Self {
            device_type,
            status,
            features,
            handled,
            groups,
            queues: list,
            class,
        })
    }

    /// The bytes of the image: [`parse`](Self::parse) reads them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self {
            device_type,
            status,
            features,
            handled,
            groups,
            queues,
            class,
        } = self;
        let mut to = Vec::new();
        to.extend(MAGIC);
        to.extend(VERSION.to_le_bytes());
        to.extend(0_u16.to_le_bytes());
        let length_at = to.len();
        to.extend([0; 4]);
        to.extend(device_type.id().to_le_bytes());
        to.extend([status.bits(), 0, 0, 0]);
        to.extend(features.to_u128().to_le_bytes());
        to.extend(handled.to_u128().to_le_bytes());
        for len in [groups.len(), queues.len(), class.len()] {
            // Groups are counted in 32 bits, queues in 16, and no class state is that long.
            to.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        }
        to.extend(groups.iter().flat_map(|asid| asid.get().to_le_bytes()));
        for (index, config) in queues {
            put_queue(&mut to, *index, config);
        }
        to.extend(class);
        let length = u32::try_from(to.len() + 4).unwrap_or(u32::MAX);
        to[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        let sum = crc32fast::hash(&to);
        to.extend(sum.to_le_bytes());
        to
    }
}

/// Whether chains are taken and not given back.
pub(crate) fn in_flight(state: QueueState) -> bool {
    match state {
        QueueState::Split { avail, used } => used.is_some_and(|used| used != avail),
        QueueState::Packed { avail, used } => used != avail,
    }
}

/// The status of a device that can be gone on with.
fn status(status: u8, pad: [u8; 3]) -> Result<Status, ImageError> {
    let illegal = || ImageError::illegal("status", status);
    let bits = Status::from_bits(status).ok_or_else(illegal)?;
    let dead = Status::FAILED | Status::DEVICE_NEEDS_RESET;
    let live = Status::DRIVER_OK | Status::SUSPEND;
    let both = bits.contains(live);
    let early = bits.intersects(live) && !bits.contains(Status::FEATURES_OK);
    if bits.intersects(dead) || both || early || pad != [0; 3] {
        return Err(illegal());
    }
    Ok(bits)
}

fn queue(rest: &mut Rest<'_>) -> Result<(QueueIndex, QueueConfig), ImageError> {
    let index = QueueIndex::new(rest.u16("queues")?);
    let size = rest.u16("queues")?;
    let flags = rest.u16("queues")?;
    let zero = rest.u16("queues")?;
    let mut area = || rest.u64("queues").map(Iova::new);
    let (descriptor, driver, device) = (area()?, area()?, area()?);
    let (avail, used) = (rest.u16("queues")?, rest.u16("queues")?);
    let other = rest.u32("queues")?;
    let has = |flag| flags & flag != 0;
    let state = match (has(STATE), has(PACKED)) {
        (false, _) => None,
        (true, true) => Some(QueueState::Packed {
            avail: Pos::from_bits(avail),
            used: Pos::from_bits(used),
        }),
        (true, false) => Some(QueueState::Split {
            avail,
            used: has(USED).then_some(used),
        }),
    };
    let config = QueueConfig {
        state,
        enabled: has(ENABLED),
        ..QueueConfig::new(size, descriptor, driver, device)
    };
    // What would come out otherwise than it went in is not from us.
    let mut same = Vec::new();
    put_queue(&mut same, index, &config);
    let [_, _, _, _, low, high, ..] = same[..] else {
        return Err(ImageError::illegal("queue flags", flags));
    };
    let known = u16::from_le_bytes([low, high]);
    let counts = state.is_some() || (avail == 0 && used == 0);
    let counts = counts && (known & USED != 0 || used == 0);
    if flags & !KNOWN != 0 || flags != known || zero != 0 || other != 0 || !counts {
        return Err(ImageError::illegal("queue flags", flags));
    }
    Ok((index, config))
}

fn put_queue(to: &mut Vec<u8>, index: QueueIndex, config: &QueueConfig) {
    let (flags, avail, used) = match config.state {
        None => (0, 0, 0),
        Some(QueueState::Split { avail, used }) => {
            let known = if used.is_some() { USED } else { 0 };
            (STATE | known, avail, used.unwrap_or(0))
        }
        Some(QueueState::Packed { avail, used }) => {
            (STATE | PACKED | USED, avail.bits(), used.bits())
        }
    };
    let enabled = if config.enabled { ENABLED } else { 0 };
    for word in [index.get(), config.size, flags | enabled, 0] {
        to.extend(word.to_le_bytes());
    }
    for area in [config.descriptor, config.driver, config.device] {
        to.extend(area.get().to_le_bytes());
    }
    for word in [avail, used, 0, 0] {
        to.extend(word.to_le_bytes());
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
