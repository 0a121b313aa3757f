//! The control queue: one command at a time, and its answer.

use std::time::Duration;

use vdpa_core::session::{Completions, Part};
use vdpa_core::{Features, Queue};
use vdpa_mem::Deadline;

use super::{Command, NetError, PATIENCE, features};

/// What the device answers when it has done it, virtio 1.4 §5.1.9.
const OK: u8 = 0;
/// What is in the place of the answer until then: no answer that there is.
const NONE: u8 = 0xff;

/// How long an answer is waited for before the device is kicked again.
const AGAIN: Duration = Duration::from_millis(100);

/// The control queue with room for one completion.
pub(super) struct Commands {
    queue: Queue,
    done: Completions,
    /// How long an answer is waited for.
    pub(super) patience: Duration,
}

impl Commands {
    pub(super) fn new(queue: Queue) -> Self {
        Self {
            queue,
            done: Completions::new(1),
            patience: PATIENCE,
        }
    }

    pub(super) fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// What the device answers to `command`; `None` if it does not in time.
    fn ask(&mut self, command: &Command) -> Result<Option<u8>, NetError> {
        let mut bytes = [0; Command::MAX_BYTES];
        let len = command.encode(&mut bytes);
        // One that was given up may have been answered since, and has the buffer.
        if self.queue.poll(&mut self.done)? > 0 {
            self.answer(0);
        }
        let Some(lease) = self.queue.lease() else {
            // An earlier command is still with the device.
            return Ok(None);
        };
        self.queue.write(&lease, 0, &bytes[..len]);
        self.queue.write(&lease, len, &[NONE]);
        let parts = [Part::Readable(len as u32), Part::Writable(1)];
        if let Err(refused) = self.queue.submit(lease, &parts) {
            self.queue.put(refused.lease);
            return Err(refused.why.into());
        }
        self.queue.publish();
        let by = Deadline::after(self.patience);
        while self.queue.poll(&mut self.done)? == 0 {
            let soon = Deadline::after(AGAIN);
            if !self.queue.wait(soon)? {
                if by.expired() {
                    return Ok(None);
                }
                // Perhaps the kick was not heard, or the call.
                self.queue.kick();
            }
        }
        Ok(Some(self.answer(len)))
    }

    /// The answer that has come, which stands at `at`. Its buffer is free again.
    fn answer(&mut self, at: usize) -> u8 {
        let mut answer = [NONE];
        while let Some(done) = self.done.pop() {
            if done.len > 0 {
                self.queue.read(&done.lease, at, &mut answer);
            }
            self.queue.put(done.lease);
        }
        answer[0]
    }
}

/// Has the device carry out `command`, with these features negotiated.
pub(super) fn run(
    commands: Option<&mut Commands>,
    features: Features,
    command: Command,
) -> Result<(), NetError> {
    let negotiated = features.contains(command.feature());
    let Some(commands) = commands.filter(|_| negotiated) else {
        let feature = features::name(command.feature());
        return Err(NetError::CommandNotNegotiated { command, feature });
    };
    match commands.ask(&command)? {
        Some(OK) => Ok(()),
        Some(_) => Err(NetError::CommandRefused { command }),
        None => Err(NetError::CommandTimeout {
            command,
            seconds: PATIENCE.as_secs(),
        }),
    }
}
