//! How a device and its queue are set up for a row.

use vdpa_core::Features;
use vdpa_ring::{Format, Pos, QueueState};

/// How a device and its queue are set up for a row.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Size of the queue under attack.
    pub size: u16,
    /// Whether tables are negotiated.
    pub indirect: bool,
    /// Whether EVENT_IDX is.
    pub event_idx: bool,
    /// Whether IN_ORDER is.
    pub in_order: bool,
    /// Where the queue under attack starts: an index (split), or a slot of the first lap (packed).
    pub from: u16,
    /// More features, where they are offered.
    pub extra: Features,
    /// More keys of the device string, each with a comma before it.
    pub keys: &'static str,
}

impl Setup {
    /// A queue of size 8, with tables.
    pub const PLAIN: Self = Self {
        size: 8,
        indirect: true,
        event_idx: false,
        in_order: false,
        from: 0,
        extra: Features::NONE,
        keys: "",
    };

    /// With another size.
    pub const fn size(self, size: u16) -> Self {
        Self { size, ..self }
    }

    /// Without tables.
    pub const fn direct(self) -> Self {
        Self {
            indirect: false,
            ..self
        }
    }

    /// With EVENT_IDX.
    pub const fn event_idx(self) -> Self {
        Self {
            event_idx: true,
            ..self
        }
    }

    /// With IN_ORDER.
    pub const fn in_order(self) -> Self {
        Self {
            in_order: true,
            ..self
        }
    }

    /// From this index or slot on.
    pub const fn from(self, from: u16) -> Self {
        Self { from, ..self }
    }

    /// With these features too, where they are offered.
    pub const fn extra(self, extra: Features) -> Self {
        Self { extra, ..self }
    }

    /// With these keys of the device string, each with a comma before it.
    pub const fn keys(self, keys: &'static str) -> Self {
        Self { keys, ..self }
    }

    /// Where the queue under attack starts.
    pub fn state(&self, format: Format) -> Option<QueueState> {
        if self.from == 0 {
            return None;
        }
        let pos = Pos {
            index: self.from,
            wrap: true,
        };
        Some(match format {
            Format::Split => QueueState::Split {
                avail: self.from,
                used: Some(self.from),
            },
            Format::Packed => QueueState::Packed {
                avail: pos,
                used: pos,
            },
        })
    }
}
