//! How the kicks and calls of a queue are led through a layer.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use vdpa_core::{
    Call, CallKind, DeviceInfo, Doorbell, Error, ErrorKind, Host, Kick, ParentError, QueueConfig,
    QueueIndex, Relayed, Result, VdpaDevice,
};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds a lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The relays of a queue that a layer needed. Dropped outside of locks: that waits for a relay that is under way.
#[derive(Default)]
pub(crate) struct Relays {
    #[expect(dead_code, reason = "it is there for as long as the queue runs")]
    pub(crate) kick: Option<Relayed>,
    pub(crate) call: Option<Relayed>,
}

/// The eventfd that kicks a queue cannot be relayed to the layer.
#[derive(Debug, thiserror::Error)]
#[error("queue {queue}: the file that kicks it cannot be watched")]
struct KickError {
    queue: QueueIndex,
    source: Error,
}

impl ParentError for KickError {
    fn kind(&self) -> ErrorKind {
        self.source.kind()
    }
}

/// Starts queue `q` of the device below.
///
/// * `call`: as the device below can make it, see [`fit`]
/// * `before`: puts something before the doorbell. An eventfd is then relayed to that, since the device would hear it
///   first; `None` leaves both alone
pub(crate) fn start(
    below: &dyn VdpaDevice,
    host: &Host,
    (q, c): (QueueIndex, &QueueConfig),
    kick: Kick,
    call: Call,
    before: Option<impl FnOnce(Doorbell) -> Doorbell>,
) -> Result<(Doorbell, Option<Relayed>)> {
    let Some(before) = before else {
        let doorbell = below.start_queue(q, c, kick, call)?;
        return Ok((doorbell, None));
    };
    let Kick::Given(from) = kick else {
        let doorbell = below.start_queue(q, c, Kick::Taken, call)?;
        return Ok((before(doorbell), None));
    };
    // Before the queue is started, since it can fail.
    let led = Arc::new(OnceLock::<Doorbell>::new());
    let to = Doorbell::from_fn({
        let led = Arc::clone(&led);
        move |data| {
            if let Some(doorbell) = led.get() {
                doorbell.ring(data);
            }
        }
    });
    let data = u32::from(q.get());
    let relayed = host.relay.kick(from, to, data);
    let relayed = relayed.map_err(|source| KickError { queue: q, source })?;
    let own = below.start_queue(q, c, Kick::Taken, call)?;
    let doorbell = before(own.clone());
    let _first = led.set(doorbell.clone());
    // For a kick that came in between.
    own.ring(data);
    Ok((doorbell, Some(relayed)))
}

/// A call of a layer's own as the device below can make it, with the relay that this needs.
pub(crate) fn fit(info: &DeviceInfo, host: &Host, call: Call) -> Result<(Call, Option<Relayed>)> {
    match (info.calls, call) {
        (CallKind::EventFd, call @ Call::Fn(_)) => {
            let (event, relayed) = host.relay.call_fd(call)?;
            Ok((Call::EventFd(event), Some(relayed)))
        }
        (_, call) => Ok((call, None)),
    }
}
