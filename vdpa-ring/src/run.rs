//! A batch that one used entry stands for, where buffers are used in order.

use crate::chain::Completion;

/// What is left of such a batch (`virtio 1.4 §2.7.9`, `§2.8.8`): all chains but the last have
/// been used completely, the entry's length is the last one's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Chains left, at least 1.
    pub(crate) left: u16,
    /// Length of the last one.
    pub(crate) len: u32,
}

impl Run {
    /// What is left after the next `done` chains, which end `taken`: the batch's last chain gets
    /// the entry's length.
    #[inline]
    pub(crate) fn after(self, done: u16, taken: &mut [Completion]) -> Option<Self> {
        let left = self.left.wrapping_sub(done);
        if left != 0 {
            return Some(Self { left, ..self });
        }
        if let Some(last) = taken.last_mut() {
            last.len = self.len;
        }
        None
    }
}
