//! The driver half in memory that writes down what is done to it, in order: for barriers, which nothing else shows for
//! certain.

use std::cell::RefCell;

use vdpa_core::Area;
use vdpa_mem::Iova;
use vdpa_ring::{Areas, DriverMem, DriverRing, RingMem, Segment, area_sizes, layout};

use crate::checked::{ensure, fail};
use crate::{Checked, Stop, Variant};

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Load(Area, u32),
    Store(Area, u32),
    /// Of what comes before, before what comes after.
    Release,
    Full,
}

struct Witness<'w> {
    area: Area,
    bytes: RefCell<Vec<u8>>,
    acts: &'w RefCell<Vec<Act>>,
}

impl Witness<'_> {
    fn load<const N: usize>(&self, at: u32) -> [u8; N] {
        self.acts.borrow_mut().push(Act::Load(self.area, at));
        let (bytes, at) = (self.bytes.borrow(), at as usize);
        let found = bytes
            .get(at..at + N)
            .and_then(|bytes| bytes.try_into().ok());
        found.unwrap_or([0; N])
    }

    fn store(&self, at: u32, value: &[u8]) {
        self.acts.borrow_mut().push(Act::Store(self.area, at));
        let (mut bytes, at) = (self.bytes.borrow_mut(), at as usize);
        if let Some(to) = bytes.get_mut(at..at + value.len()) {
            to.copy_from_slice(value);
        }
    }
}

impl RingMem for Witness<'_> {
    fn load_u16(&self, at: u32) -> u16 {
        u16::from_le_bytes(self.load(at))
    }
    fn store_u16(&self, at: u32, value: u16) {
        self.store(at, &value.to_le_bytes());
    }
    fn load_u32(&self, at: u32) -> u32 {
        u32::from_le_bytes(self.load(at))
    }
    fn store_u32(&self, at: u32, value: u32) {
        self.store(at, &value.to_le_bytes());
    }
    fn load_u64(&self, at: u32) -> u64 {
        u64::from_le_bytes(self.load(at))
    }
    fn store_u64(&self, at: u32, value: u64) {
        self.store(at, &value.to_le_bytes());
    }
    fn acquire(&self) {}
    fn release(&self) {
        self.acts.borrow_mut().push(Act::Release);
    }
    fn full(&self) {
        self.acts.borrow_mut().push(Act::Full);
    }
}

/// Where a publication is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// All that is shown is written before, with a barrier between: virtio 1.4 §2.7.13.3.1, §2.8.17.
    Before,
    /// What says whether a kick is asked for is read after, with a full barrier between: virtio 1.4 §2.7.13.4.1, §2.8.21.
    After,
}

/// Has the driver half show a few chains, one and several at once, and looks at the order of what it does.
pub(super) fn orders(variant: Variant, side: Side) -> Checked {
    const SIZE: u16 = 8;
    let acts = RefCell::new(Vec::new());
    let sizes = area_sizes(variant.format, SIZE, true);
    let witness = |area, bytes: u32| Witness {
        area,
        bytes: RefCell::new(vec![0; bytes as usize]),
        acts: &acts,
    };
    let mem = DriverMem::new(Areas {
        descriptor: witness(Area::Descriptor, sizes.descriptor.bytes),
        driver: witness(Area::Driver, sizes.driver.bytes),
        device: witness(Area::Device, sizes.device.bytes),
    });
    let half = DriverRing::new(variant.format, SIZE, variant.ring_features(), None);
    let mut half = half.map_err(|e| Stop::failed(e.to_string()))?;
    let segment = Segment {
        addr: Iova::new(0x1000),
        len: 16,
    };
    let mut slot = 0;
    for chains in [&[1_u16][..], &[2], &[1, 3]] {
        acts.borrow_mut().clear();
        for segments in chains {
            let segments = vec![segment; usize::from(*segments)];
            let added = half.add(&mem, &segments, &[]);
            added.map_err(|e| Stop::failed(e.to_string()))?;
        }
        half.publish(&mem);
        let shows = match variant.is_packed() {
            true => Act::Store(Area::Descriptor, layout::descriptor_meta(slot)),
            false => Act::Store(Area::Driver, layout::IDX),
        };
        slot += chains.iter().sum::<u16>();
        judge(&acts.borrow(), shows, side)?;
    }
    Ok(())
}

fn judge(acts: &[Act], shows: Act, side: Side) -> Checked {
    let Some(shown) = acts.iter().position(|act| *act == shows) else {
        fail!("nothing was shown: {acts:?}");
    };
    let (before, after) = (&acts[..shown], &acts[shown + 1..]);
    let is_store = |act: &Act| matches!(act, Act::Store(..));
    if side == Side::Before {
        ensure!(
            !after.iter().any(is_store),
            "something is stored after what shows it: {acts:?}"
        );
        let last = before.iter().rposition(is_store).unwrap_or(0);
        let barrier = |act: &Act| matches!(act, Act::Release | Act::Full);
        ensure!(
            before[last..].iter().any(barrier),
            "there is no barrier before what shows it: {acts:?}"
        );
        return Ok(());
    }
    let asks = |act: &Act| matches!(act, Act::Load(Area::Device, _));
    ensure!(
        !before.iter().any(asks),
        "what asks for kicks is read before the chain is shown: {acts:?}"
    );
    let Some(first) = after.iter().position(asks) else {
        fail!("what asks for kicks is not read: {acts:?}");
    };
    ensure!(
        after[..first].contains(&Act::Full),
        "there is no full barrier before what asks for kicks is read: {acts:?}"
    );
    Ok(())
}
