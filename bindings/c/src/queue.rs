//! Queues: starting, stopping, and where they stand.
#![allow(unsafe_code, reason = "exports symbols by name")]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::Arc;

use vdpa::Iova;
use vdpa::core::{Asid, Call, GroupIndex, Kick, QueueConfig, QueueIndex};
use vdpa::ring::{Pos, QueueState};

use crate::boundary::done;
use crate::device::{Device, deadline};
use crate::doorbell::Doorbell;
use crate::failure::Failure;
use crate::fd;
use crate::pointer::given;

/// A split ring: free-running indices.
pub const VDPA_STATE_SPLIT: u16 = 0;
/// A split ring of which only `avail` is known. The device reads `used` from the used ring when it starts.
pub const VDPA_STATE_SPLIT_AVAIL: u16 = 1;
/// A packed ring: positions, with their wrap counters.
pub const VDPA_STATE_PACKED: u16 = 2;

/// The queue runs without effect until vdpa_device_enable_queue() switches it on: needs VDPA_CAP_QUEUE_ENABLE.
pub const VDPA_QUEUE_DISABLED: u16 = 1 << 0;

/// What a queue can do with the features accepted.
#[repr(C)]
pub struct QueueLimits {
    /// The largest size, in descriptors; 0 for a queue that does not exist with these features.
    pub max_size: u32,
    /// The group that the queue is in.
    pub group: u32,
}

/// What a queue needs to start.
#[repr(C)]
pub struct QueueSetup {
    /// Device address of the descriptor area.
    pub descriptor: u64,
    /// Device address of the driver area: the available ring, or the driver's event suppression.
    pub driver: u64,
    /// Device address of the device area: the used ring, or the device's event suppression.
    pub device: u64,
    /// In descriptors: a power of two for a split ring, any size for a packed one, 1 to 32768.
    pub size: u16,
    /// 0 or VDPA_QUEUE_DISABLED.
    pub flags: u16,
}

/// Where a queue stands: enough to go on elsewhere.
#[repr(C)]
pub struct RingState {
    /// VDPA_STATE_*: which of the others are of use.
    pub kind: u16,
    /// The next entry that the device takes: an index, or a slot below the size.
    pub avail: u16,
    /// The next entry that the device marks used: the same.
    pub used: u16,
    /// The wrap counter at `avail`, of a packed ring: 0 or 1.
    pub avail_wrap: u8,
    /// The wrap counter at `used`, of a packed ring: 0 or 1.
    pub used_wrap: u8,
}

impl RingState {
    fn state(&self) -> Result<QueueState, Failure> {
        match self.kind {
            VDPA_STATE_SPLIT => Ok(QueueState::Split {
                avail: self.avail,
                used: Some(self.used),
            }),
            VDPA_STATE_SPLIT_AVAIL => Ok(QueueState::Split {
                avail: self.avail,
                used: None,
            }),
            VDPA_STATE_PACKED => Ok(QueueState::Packed {
                avail: Pos {
                    index: self.avail,
                    wrap: wrap(self.avail_wrap, "state->avail_wrap")?,
                },
                used: Pos {
                    index: self.used,
                    wrap: wrap(self.used_wrap, "state->used_wrap")?,
                },
            }),
            kind => Err(Failure::Value {
                argument: "state->kind",
                value: kind.into(),
                legal: "VDPA_STATE_SPLIT, VDPA_STATE_SPLIT_AVAIL and VDPA_STATE_PACKED are legal",
            }),
        }
    }
}

impl From<QueueState> for RingState {
    fn from(state: QueueState) -> Self {
        match state {
            QueueState::Split { avail, used } => Self {
                kind: match used {
                    Some(_) => VDPA_STATE_SPLIT,
                    None => VDPA_STATE_SPLIT_AVAIL,
                },
                avail,
                used: used.unwrap_or(0),
                avail_wrap: 0,
                used_wrap: 0,
            },
            QueueState::Packed { avail, used } => Self {
                kind: VDPA_STATE_PACKED,
                avail: avail.index,
                used: used.index,
                avail_wrap: avail.wrap.into(),
                used_wrap: used.wrap.into(),
            },
        }
    }
}

fn wrap(value: u8, argument: &'static str) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(Failure::Value {
            argument,
            value: value.into(),
            legal: "0 and 1 are legal",
        }),
    }
}

/// The call that an argument stands for.
fn call_by(fd: c_int) -> Result<Call, Failure> {
    let event = fd::eventfd(fd, "call_fd")?;
    Ok(event.map_or(Call::None, |event| Call::EventFd(Arc::new(event))))
}

/// What a queue can do with the features accepted.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_queue_limits(
    device: Option<&Device>,
    queue: u16,
    limits: Option<&mut MaybeUninit<QueueLimits>>,
) -> c_int {
    done(|| {
        let (device, to) = (given(device, "device")?, given(limits, "limits")?);
        let limits = device.device.queue_limits(QueueIndex::new(queue))?;
        to.write(QueueLimits {
            max_size: limits.max_size.into(),
            group: limits.group.get(),
        });
        Ok(())
    })
}

/// Puts a queue group into an address space, while none of its queues is started. All are in the first one at the start,
/// and after each reset.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_assign_group(
    device: Option<&Device>,
    group: u32,
    asid: u32,
) -> c_int {
    done(|| {
        let device = given(device, "device")?;
        let (group, asid) = (GroupIndex::new(group), Asid::new(asid));
        Ok(device.device.assign_group(group, asid)?)
    })
}

/// Starts a queue, after FEATURES_OK. Its three areas have to be mapped by now.
///
/// state: where it goes on; NULL: at the beginning of a fresh ring
///
/// kick_fd: an eventfd that kicks the queue when written, or -1. It is duplicated, so it can be closed; it is not read, but
/// to keep its counter from being full
///
/// call_fd: an eventfd that the device writes to call the driver, or -1 for a driver that polls. It is duplicated, and made
/// non-blocking, which the caller's then is as well
///
/// doorbell: where a handle is written that kicks the queue whatever kick_fd is, freed by vdpa_doorbell_free(). NULL: not
/// wanted
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_start_queue(
    device: Option<&Device>,
    queue: u16,
    setup: Option<&QueueSetup>,
    state: Option<&RingState>,
    kick_fd: c_int,
    call_fd: c_int,
    doorbell: Option<&mut MaybeUninit<*mut Doorbell>>,
) -> c_int {
    done(|| {
        let (device, setup) = (given(device, "device")?, given(setup, "setup")?);
        if setup.flags & !VDPA_QUEUE_DISABLED != 0 {
            return Err(Failure::Value {
                argument: "setup->flags",
                value: setup.flags.into(),
                legal: "0 and VDPA_QUEUE_DISABLED are legal",
            });
        }
        let config = QueueConfig {
            size: setup.size,
            descriptor: Iova::new(setup.descriptor),
            driver: Iova::new(setup.driver),
            device: Iova::new(setup.device),
            state: state.map(RingState::state).transpose()?,
            enabled: setup.flags & VDPA_QUEUE_DISABLED == 0,
        };
        let kick = fd::eventfd(kick_fd, "kick_fd")?;
        let kick = kick.map_or(Kick::Taken, |kick| Kick::Given(Arc::new(kick)));
        let call = call_by(call_fd)?;
        let queue = QueueIndex::new(queue);
        let rings = device.device.start_queue(queue, config, kick, call)?;
        if let Some(to) = doorbell {
            to.write(Doorbell::new(rings));
        }
        Ok(())
    })
}

/// Replaces the call of a running queue. On 0 the old one is unused, and the new one was raised once.
///
/// call_fd: as for vdpa_device_start_queue()
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_replace_call(
    device: Option<&Device>,
    queue: u16,
    call_fd: c_int,
) -> c_int {
    done(|| {
        let device = given(device, "device")?;
        let call = call_by(call_fd)?;
        Ok(device.device.replace_call(QueueIndex::new(queue), call)?)
    })
}

/// Switches a running queue on (1) or off (0). One that is off runs on without effect: a network device discards what is
/// sent, and takes no receive buffer.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_enable_queue(
    device: Option<&Device>,
    queue: u16,
    on: c_int,
) -> c_int {
    done(|| {
        let device = given(device, "device")?;
        let on = match on {
            0 => false,
            1 => true,
            other => {
                return Err(Failure::Value {
                    argument: "on",
                    value: u64::from(other.cast_unsigned()),
                    legal: "0 and 1 are legal",
                });
            }
        };
        Ok(device.device.enable_queue(QueueIndex::new(queue), on)?)
    })
}

/// Stops a queue and takes its state, with which it can be started again, here or elsewhere. If it is not stopped in time,
/// that goes on, and the same call waits for it again.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_stop_queue(
    device: Option<&Device>,
    queue: u16,
    timeout_ms: u32,
    state: Option<&mut MaybeUninit<RingState>>,
) -> c_int {
    done(|| {
        let (device, to) = (given(device, "device")?, given(state, "state")?);
        let by = deadline(timeout_ms);
        let stopped = device.device.stop_queue(QueueIndex::new(queue), by)?;
        to.write(stopped.into());
        Ok(())
    })
}

/// Where a queue stands, while the device is suspended.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_queue_state(
    device: Option<&Device>,
    queue: u16,
    state: Option<&mut MaybeUninit<RingState>>,
) -> c_int {
    done(|| {
        let (device, to) = (given(device, "device")?, given(state, "state")?);
        let stands = device.device.queue_state(QueueIndex::new(queue))?;
        to.write(stands.into());
        Ok(())
    })
}

/// Resets one queue; its state is lost. If it is not reset in time, that goes on, and the same call waits for it again: with
/// a timeout of 0 a guest's processor may be behind it.
#[unsafe(no_mangle)]
pub extern "C" fn vdpa_device_reset_queue(
    device: Option<&Device>,
    queue: u16,
    timeout_ms: u32,
) -> c_int {
    done(|| {
        let device = given(device, "device")?;
        let by = deadline(timeout_ms);
        Ok(device.device.reset_queue(QueueIndex::new(queue), by)?)
    })
}
