//! Our own driver, `vdpa_core::Session`, on a device whose calls are written down.

use std::sync::Arc;

use vdpa_core::session::{Completions, Configured, Negotiating, Part, QueueSetup, Running};
use vdpa_core::{Device, Error, Features, QueueIndex, Relay, Session, VdpaDevice};

use crate::checked::{ensure, skip};
use crate::lane::{NET_HEADER, Traffic, frame};
use crate::recorder::Recorder;
use crate::rig::plain;
use crate::{Bench, Checked, Stop, Variant};

/// A request for a disk's identity: the header, and what comes back.
const GET_ID: [u8; 16] = [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ID_AND_STATUS: u32 = 21;

/// What a step of a session gives back with its error is of no use to a statement.
pub(crate) fn lost<T>((_, error): (T, Error)) -> Stop {
    error.into()
}

/// A device that the target made, written down.
pub(crate) fn recorded(bench: &Bench<'_>) -> Checked<Arc<Recorder>> {
    Ok(Recorder::around(bench.make()?))
}

/// A session that has taken hold of a device.
pub(crate) fn open(
    bench: &Bench<'_>,
    parent: Arc<dyn VdpaDevice>,
) -> Checked<Session<Negotiating>> {
    let device = Device::new(parent, Relay::new())?;
    Session::open(device, bench.by()).map_err(lost)
}

/// One that agreed on the features of `variant`, and has set up the queues of its type's traffic.
pub(crate) fn configured(
    bench: &Bench<'_>,
    parent: Arc<dyn VdpaDevice>,
    variant: Variant,
) -> Checked<Session<Configured>> {
    let offered = parent.offered();
    let wanted = plain(parent.info().device_type, offered, variant);
    configured_with(bench, parent, wanted)
}

fn configured_with(
    bench: &Bench<'_>,
    parent: Arc<dyn VdpaDevice>,
    wanted: Features,
) -> Checked<Session<Configured>> {
    let session = open(bench, parent)?;
    let mut session = session.negotiate(wanted).map_err(lost)?;
    let queues: &[u16] = match Traffic::of(session.device_type())? {
        [Traffic::Transmit, ..] => &[0, 1],
        _ => &[0],
    };
    for queue in queues {
        let index = QueueIndex::new(*queue);
        let most = session.queue_limits(index)?.max_size;
        ensure!(most > 0, "queue {queue} does not exist");
        let setup = QueueSetup {
            size: 1 << most.min(16).ilog2(),
            buffers: 8,
            ..QueueSetup::default()
        };
        session.queue(index, setup)?;
    }
    Ok(session)
}

/// One that is live.
pub(crate) fn running(
    bench: &Bench<'_>,
    parent: Arc<dyn VdpaDevice>,
    variant: Variant,
) -> Checked<Session<Running>> {
    configured(bench, parent, variant)?.run().map_err(lost)
}

/// The same with exactly these features.
pub(crate) fn running_with(
    bench: &Bench<'_>,
    parent: Arc<dyn VdpaDevice>,
    wanted: Features,
) -> Checked<Session<Running>> {
    let session = configured_with(bench, parent, wanted)?;
    session.run().map_err(lost)
}

/// Makes one request through the session, and waits for it.
pub(crate) fn request(bench: &Bench<'_>, session: &mut Session<Running>) -> Checked {
    let traffic = match Traffic::of(session.device_type())? {
        [first, ..] => *first,
        [] => return Ok(()),
    };
    let q = match traffic {
        Traffic::Transmit => 1,
        Traffic::Receive | Traffic::Disk | Traffic::Entropy => 0,
    };
    let Some(queue) = session.queue_mut(QueueIndex::new(q)) else {
        return Err(Stop::failed(format!("queue {q} is not there")));
    };
    let (size, least) = (queue.size(), if traffic == Traffic::Disk { 2 } else { 1 });
    if size < least {
        skip!("a queue of {size} is too small: it takes {least}");
    }
    let Some(lease) = queue.lease() else {
        return Err(Stop::failed(format!("queue {q} has no buffer left")));
    };
    let submitted = match traffic {
        Traffic::Transmit => {
            let packet = [vec![0; NET_HEADER as usize], frame(0)].concat();
            let len = queue.write(&lease, 0, &packet);
            queue.send(lease, len as u32)
        }
        Traffic::Disk => {
            let len = queue.write(&lease, 0, &GET_ID);
            let parts = [Part::Readable(len as u32), Part::Writable(ID_AND_STATUS)];
            queue.submit(lease, &parts)
        }
        Traffic::Receive | Traffic::Entropy => queue.receive(lease),
    };
    submitted.map_err(|refused| Stop::from(refused.why))?;
    queue.publish();
    // Whether the device asks for it or not, so that there is one to be seen.
    queue.kick();
    let mut done = Completions::new(4);
    bench.until("the return of a request", || Ok(queue.poll(&mut done)? > 0))?;
    for done in done.drain() {
        queue.put(done.lease);
    }
    Ok(())
}
