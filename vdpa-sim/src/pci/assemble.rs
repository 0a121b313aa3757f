//! Configuration space of a function, put together from its layout.

use vdpa_core::DeviceType;
use vdpa_pci::{BARS, Width};

use crate::pci::config_space::{CONFIG_BYTES, ConfigSpace};
use crate::pci::layout::{Identity, Layout};
use crate::pci::region::{Region, Regions, Structure};

/// The vendor of virtio functions.
const VENDOR: u16 = 0x1af4;

/// Offsets of the header, PCI 3.0 §6.1.
pub(super) const COMMAND: u16 = 0x04;
pub(super) const STATUS: u16 = 0x06;
const REVISION: u16 = 0x08;
const BAR: u16 = 0x10;
const SUBSYSTEM: u16 = 0x2c;
const INTERRUPT_LINE: u16 = 0x3c;
const INTERRUPT_PIN: u16 = 0x3d;

/// Bits of the command register.
pub(super) const COMMAND_MEMORY: u32 = 1 << 1;
pub(super) const COMMAND_MASTER: u32 = 1 << 2;
pub(super) const COMMAND_LINE_OFF: u32 = 1 << 10;
/// The bit of the status register that says that the line is held.
pub(super) const STATUS_LINE: u32 = 1 << 3;

/// Capabilities, as PCI numbers them.
const CAP_VENDOR: u8 = 0x09;
const CAP_EXPRESS: u8 = 0x10;
const CAP_MSIX: u8 = 0x11;

/// Bits of the MSI-X message control.
pub(super) const MSIX_ON: u32 = 1 << 15;
pub(super) const MSIX_ALL_MASKED: u32 = 1 << 14;

/// The PCI Express capability: device control is here in it, and its bit that resets the function.
pub(super) const EXPRESS_CONTROL: u16 = 0x08;
pub(super) const EXPRESS_RESET: u32 = 1 << 15;

/// Fields of the PCI_CFG capability, virtio 1.4 §4.1.4.9.
pub(super) const WINDOW_BAR: u16 = 0x04;
pub(super) const WINDOW_OFFSET: u16 = 0x08;
pub(super) const WINDOW_LENGTH: u16 = 0x0c;
pub(super) const WINDOW_DATA: u16 = 0x10;

/// `cfg_type` of a virtio capability, virtio 1.4 §4.1.4.
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_ISR: u8 = 3;
const TYPE_DEVICE: u8 = 4;
const TYPE_WINDOW: u8 = 5;
const TYPE_SHARED: u8 = 8;
/// One that no specification has.
const TYPE_UNKNOWN: u8 = 0x55;

/// Where the BARs are before anybody moves them.
const FIRST_ADDRESS: u64 = 0xe000_0000;
/// The I/O BAR of old drivers: where it is, and its size.
const IO_ADDRESS: u32 = 0xc000;
const IO_BYTES: u32 = 0x40;

/// Where the capabilities are that a write has consequences in.
#[derive(Clone, Copy, Default)]
pub(super) struct Places {
    pub(super) express: Option<u16>,
    pub(super) msix: Option<u16>,
    pub(super) window: Option<u16>,
}

/// What a function says that it is.
struct Ids {
    device: u16,
    subsystem: u16,
    revision: u8,
}

/// The device ids of before virtio 1.0, virtio 1.4 §4.1.2.1.
fn transitional_id(device: DeviceType) -> Option<u16> {
    Some(match device {
        DeviceType::Net => 0x1000,
        DeviceType::Block => 0x1001,
        DeviceType::MemoryBalloon => 0x1002,
        DeviceType::Console => 0x1003,
        DeviceType::Scsi => 0x1004,
        DeviceType::Entropy => 0x1005,
        DeviceType::Plan9 => 0x1009,
        _ => return None,
    })
}

fn ids(layout: &Layout, device: DeviceType) -> Ids {
    let number = u16::try_from(device.id()).unwrap_or(0);
    let modern = Ids {
        device: number.saturating_add(0x1040),
        // virtio 1.4 §4.1.2.1: not what an old driver takes for its own.
        subsystem: 0x1100,
        revision: 1,
    };
    match (layout.identity, transitional_id(device)) {
        (Identity::Modern, _) | (_, None) => modern,
        (Identity::Transitional | Identity::Legacy, Some(device)) => Ids {
            device,
            subsystem: number,
            revision: 0,
        },
    }
}

/// Class, subclass, programming interface.
fn class(device: DeviceType) -> u32 {
    match device {
        DeviceType::Net => 0x02_00_00,
        DeviceType::Block => 0x01_80_00,
        _ => 0x00_ff_00,
    }
}

/// The configuration space of a function, without extended capabilities.
pub(super) fn space(
    layout: &Layout,
    device: DeviceType,
    regions: &Regions,
    vectors: u16,
) -> (ConfigSpace, Places) {
    let mut space = ConfigSpace::new();
    let ids = ids(layout, device);
    space.set(0, &VENDOR.to_le_bytes());
    space.set(2, &ids.device.to_le_bytes());
    let writable = COMMAND_MEMORY | COMMAND_MASTER | COMMAND_LINE_OFF;
    space.set_writable(COMMAND, &(writable as u16).to_le_bytes());
    let class = class(device) << 8 | u32::from(ids.revision);
    space.set(REVISION, &class.to_le_bytes());
    space.set(SUBSYSTEM, &VENDOR.to_le_bytes());
    space.set(SUBSYSTEM.saturating_add(2), &ids.subsystem.to_le_bytes());
    space.set_writable(INTERRUPT_LINE, &[0xff]);
    space.set(INTERRUPT_PIN, &[u8::from(layout.line)]);
    bars(&mut space, layout, regions);

    let mut places = Places {
        express: express(&mut space),
        ..Places::default()
    };
    let types = [
        (Structure::Common, TYPE_COMMON),
        (Structure::Isr, TYPE_ISR),
        (Structure::Device, TYPE_DEVICE),
    ];
    if layout.clutter {
        clutter(&mut space, regions);
    }
    for (what, cfg_type) in types {
        if let Some(region) = regions.of(what) {
            let (mut body, _) = virtio(cfg_type, region, None);
            if layout.clutter && what == Structure::Common {
                lengthen(&mut body);
            }
            let _placed = space.add_capability(CAP_VENDOR, &body, &[]);
        }
    }
    if let Some(region) = regions.of(Structure::Notify) {
        let (body, _) = virtio(TYPE_NOTIFY, region, Some(layout.multiplier));
        let _placed = space.add_capability(CAP_VENDOR, &body, &[]);
        let nowhere = Region {
            bar: 0,
            at: 0,
            len: 0,
            ..region
        };
        let (body, writable) = virtio(TYPE_WINDOW, nowhere, Some(0));
        places.window = space.add_capability(CAP_VENDOR, &body, &writable);
    }
    for id in regions.shared() {
        if let Some(region) = regions.of(Structure::Shared(id)) {
            let _placed = space.add_capability(CAP_VENDOR, &shared(id, region), &[]);
        }
    }
    if let (Some(table), Some(pending)) =
        (regions.of(Structure::Table), regions.of(Structure::Pending))
    {
        let mut body = vectors.saturating_sub(1).to_le_bytes().to_vec();
        for region in [table, pending] {
            // Both are aligned to 8.
            body.extend((region.at | u32::from(region.bar)).to_le_bytes());
        }
        places.msix = space.add_capability(CAP_MSIX, &body, &[0, 0xc0]);
    }
    (space, places)
}

/// The body of a virtio capability, and what of it a driver writes if it is the PCI_CFG one.
fn virtio(cfg_type: u8, region: Region, more: Option<u32>) -> (Vec<u8>, Vec<u8>) {
    let len = if more.is_some() { 20 } else { 16 };
    let mut body = vec![len, cfg_type, region.bar, 0, 0, 0];
    body.extend(region.at.to_le_bytes());
    body.extend(region.len.to_le_bytes());
    body.extend(more.into_iter().flat_map(u32::to_le_bytes));
    let mut writable = vec![0, 0, 0xff, 0, 0, 0];
    writable.extend([0xff; 12]);
    (body, writable)
}

/// The body of a capability of shared memory: `struct virtio_pci_cap64`, virtio 1.4 §4.1.4.7.
fn shared(id: u8, region: Region) -> Vec<u8> {
    let mut body = vec![24, TYPE_SHARED, region.bar, id, 0, 0];
    body.extend(region.at.to_le_bytes());
    body.extend(region.len.to_le_bytes());
    // The upper halves.
    body.extend([0; 8]);
    body
}

/// What virtio 1.4 §4.1.4.1 has a driver ignore: a type that nobody knows, and a structure in a BAR that is none. The list
/// has no room for more.
fn clutter(space: &mut ConfigSpace, regions: &Regions) {
    let _placed = space.add_capability(CAP_VENDOR, &[8, TYPE_UNKNOWN, 0, 0, 0, 0], &[]);
    if let Some(common) = regions.of(Structure::Common) {
        let nowhere = Region {
            bar: BARS,
            ..common
        };
        let (body, _) = virtio(TYPE_COMMON, nowhere, None);
        let _placed = space.add_capability(CAP_VENDOR, &body, &[]);
    }
}

/// A capability of a later specification: it has more than it needs.
fn lengthen(body: &mut Vec<u8>) {
    body.extend([0xff; 4]);
    if let Some(len) = body.first_mut() {
        *len = len.saturating_add(4);
    }
}

/// The PCI Express capability of an endpoint that can be reset alone.
fn express(space: &mut ConfigSpace) -> Option<u16> {
    let mut body = [0_u8; 0x3a];
    // Version 2; role-based error reporting, and function level reset.
    for (to, from) in body.iter_mut().zip([2, 0, 0, 0x80, 0, 0x10]) {
        *to = from;
    }
    space.add_capability(CAP_EXPRESS, &body, &[0; 0x3a])
}

/// BARs that answer the sizing by all ones.
fn bars(space: &mut ConfigSpace, layout: &Layout, regions: &Regions) {
    let mut next = FIRST_ADDRESS;
    for (bar, at) in (0..BARS).zip((BAR..).step_by(4)) {
        let len = regions.bar_len(bar);
        if len == 0 {
            continue;
        }
        let address = next.checked_next_multiple_of(len).unwrap_or(next);
        next = address.saturating_add(len);
        let mask = len.wrapping_neg().to_le_bytes();
        let wide = layout.wide & 1_u8.checked_shl(bar.into()).unwrap_or(0) != 0;
        // A 64-bit one is prefetchable too.
        let kind = if wide { 0b1100 } else { 0 };
        let bytes = (address | kind).to_le_bytes();
        let count = if wide { 8 } else { 4 };
        space.set(at, bytes.get(..count).unwrap_or_default());
        space.set_writable(at, mask.get(..count).unwrap_or_default());
    }
    if layout.identity != Identity::Modern && regions.bar_len(0) == 0 {
        space.set(BAR, &(IO_ADDRESS | 1).to_le_bytes());
        space.set_writable(BAR, &IO_BYTES.wrapping_neg().to_le_bytes());
    }
}

/// Whether `len` bytes at `at` are a register of configuration space.
pub(super) fn is_register(at: u16, width: Width) -> bool {
    let len = u16::from(width.bytes());
    let end = at.checked_add(len).is_some_and(|end| end <= CONFIG_BYTES);
    end && at.is_multiple_of(len)
}
