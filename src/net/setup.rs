//! From a device to a running driver.

use vdpa_core::{Device, DeviceType, Features, Queue, Session, Status};
use vdpa_mem::Deadline;

use super::features::choose;
use super::plan::Plan;
use super::{Ethernet, NetDriver, NetError, PATIENCE, Ring};

/// What a driver asks of its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// The rings.
    pub ring: Ring,
    /// Queue pairs, at least 1. More than one needs MQ.
    pub pairs: u16,
    /// Descriptors in a queue, at most: the largest legal size that neither this nor the device's limit exceeds.
    pub queue_size: u16,
    /// Whether to receive what is for others too. Where the device filters, and can be told not to (CTRL_RX).
    pub promiscuous: bool,
    /// Features to ask for beyond the usual ones, of [`OPTIONAL`](super::OPTIONAL): those that the device offers are
    /// negotiated. With none of them every frame is sent and received whole, with its checksum in place.
    pub ask: Features,
    /// Features to do without, though the device offers them, such as MRG_RXBUF.
    pub decline: Features,
}

impl Setup {
    /// The default, with these features asked for as well.
    pub fn asking(features: Features) -> Self {
        Self {
            ask: features,
            ..Self::default()
        }
    }
}

impl Default for Setup {
    /// Split rings as large as the device has them, one pair, no offloads, and every frame is received.
    fn default() -> Self {
        Self {
            ring: Ring::default(),
            pairs: 1,
            queue_size: vdpa_ring::layout::MAX_SIZE,
            promiscuous: true,
            ask: Features::NONE,
            decline: Features::NONE,
        }
    }
}

/// A step on the way to a running driver that was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// The device was reset, and acknowledged; these are its features.
    Offered(Features),
    /// The device agreed to these: FEATURES_OK was read back.
    Accepted(Features),
    /// The device is live.
    Live {
        /// Its status byte.
        status: Status,
        /// The features agreed on.
        features: Features,
        /// How many queues were started.
        queues: u16,
        /// Descriptors in the first one.
        size: u16,
        /// Address and MTU.
        ethernet: Ethernet,
    },
}

pub(super) fn start(
    device: Device,
    setup: &Setup,
    watch: &mut dyn FnMut(Step),
) -> Result<NetDriver, NetError> {
    let device_type = device.info().device_type;
    if device_type != DeviceType::Net {
        return Err(NetError::NotNet { device_type });
    }
    let by = Deadline::after(PATIENCE);
    let session = Session::open(device, by).map_err(|(_, error)| error)?;
    watch(Step::Offered(session.offered()));

    let wanted = choose(&session, setup)?;
    let session = session.negotiate(wanted).map_err(|(_, error)| error)?;
    watch(Step::Accepted(session.features()));

    let plan = Plan::of(&session, setup)?;
    let (control, queues) = plan.run(session)?;
    let (status, features) = (control.status()?, control.features());
    watch(Step::Live {
        status,
        features,
        queues: u16::try_from(queues.len()).unwrap_or(u16::MAX),
        size: queues.first().map_or(0, Queue::size),
        ethernet: plan.ethernet,
    });
    plan.drive(control, queues, setup)
}
