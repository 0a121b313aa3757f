//! The kinds of faults that the layer makes of any device.

use vdpa_core::faults::Kind;

const fn kind(name: &'static str, about: &'static str) -> Kind {
    Kind { name, about }
}

/// A contract call fails, and the device does not learn of it.
pub const CONTROL_ERROR: Kind = kind(
    "control.error",
    "a contract call fails before it reaches the device",
);
/// What is begun is said to be under way for longer.
pub const CONTROL_SLOW: Kind = kind(
    "control.slow",
    "a reset, a stop or a suspend takes 1 to 50 ms longer",
);
/// FEATURES_OK is left unset.
pub const CONTROL_REFUSED: Kind = kind("control.refused", "the device leaves FEATURES_OK unset");
/// A mapping is refused.
pub const MAP_REFUSED: Kind = kind(
    "map.refused",
    "a mapping that the device has to be told of is refused, as by a system without an entry left",
);
/// A mapping takes long.
pub const MAP_LATE: Kind = kind(
    "map.late",
    "a mapping that the device has to be told of takes 1 to 50 ms longer",
);
/// A kick does not arrive.
pub const KICK_LOST: Kind = kind("kick.lost", "a kick does not arrive");
/// A kick arrives twice.
pub const KICK_DOUBLED: Kind = kind("kick.doubled", "a kick arrives twice");
/// A kick arrives late.
pub const KICK_LATE: Kind = kind(
    "kick.late",
    "a kick arrives with one of the next 8 of its queue, or after 1 to 20 ms",
);
/// A call does not arrive.
pub const CALL_LOST: Kind = kind("call.lost", "a call does not arrive");
/// A call arrives twice.
pub const CALL_DOUBLED: Kind = kind("call.doubled", "a call arrives twice");
/// A call arrives late.
pub const CALL_LATE: Kind = kind(
    "call.late",
    "a call arrives with one of the next 8 of its queue, or after 1 to 20 ms",
);
/// The configuration is said to have changed.
pub const CONFIG_STORM: Kind = kind(
    "config.storm",
    "the configuration's generation changes, with an event, and nothing in it does",
);
/// The device says that it needs a reset.
pub const NEEDS_RESET: Kind = kind(
    "device.needs_reset",
    "the device sets DEVICE_NEEDS_RESET, and hears no kick and makes no call until it is reset",
);
/// The device is gone.
pub const GONE: Kind = kind("device.gone", "the device is gone for good");

/// All of them.
pub const KINDS: &[Kind] = &[
    CONTROL_ERROR,
    CONTROL_SLOW,
    CONTROL_REFUSED,
    MAP_REFUSED,
    MAP_LATE,
    KICK_LOST,
    KICK_DOUBLED,
    KICK_LATE,
    CALL_LOST,
    CALL_DOUBLED,
    CALL_LATE,
    CONFIG_STORM,
    NEEDS_RESET,
    GONE,
];
