//! A physical function with network cards, and the driver of its administration queue.

use std::sync::{Arc, Mutex};

use vdpa_core::bits;
use vdpa_core::*;
use vdpa_pci::{Layout as Found, PciAccess, VirtioPci, Width};
use vdpa_sim::net::{Net, POSSIBLE, Settings};
use vdpa_sim::pci::{Function, Layout, Setup};
use vdpa_sim::pf::command::Opcode;
use vdpa_sim::pf::part::{Part, PartName, PartType};
use vdpa_sim::pf::{PfFunction, sriov};
use vdpa_sim::port::{Loopback, Presence};
use vdpa_sim::{Options, SimDevice};

use crate::rig::*;

/// How many virtual functions there can be.
pub(crate) const TOTAL: u16 = 4;

/// Queues of a card before the administration queue: a pair, and the control queue.
pub(crate) const ADMIN: u16 = 3;

pub(crate) fn card() -> Box<Net> {
    let settings = Settings {
        mac: "52:54:00:00:00:01".parse().unwrap(),
        mtu: 1500,
        pairs: 1,
        queue_size: 64,
        features: POSSIBLE,
        speed: None,
        link: true,
    };
    let presence = Presence::new(true);
    let port = Loopback::new(presence.clone(), 1, settings.longest());
    Box::new(Net::new(settings, presence, Arc::new(port)))
}

/// The simulated devices of virtual functions, in the order in which they were made.
pub(crate) type Made = Arc<Mutex<Vec<Arc<SimDevice>>>>;

pub(crate) fn pf_and_made() -> (PfFunction, Made) {
    let made = Made::default();
    let list = made.clone();
    let make = move |number| {
        let name = format!("vf{number}");
        let device = Arc::new(SimDevice::new(&name, card(), Options::default()));
        list.lock().unwrap().push(device.clone());
        Function::new(Device::new(device, Relay::new())?, Setup::new(Layout::QEMU))
    };
    (pf_of(Box::new(make)), made)
}

/// A physical function whose virtual functions are made so.
pub(crate) fn pf_of(make: sriov::Maker) -> PfFunction {
    let serve = |class| SimDevice::new("pf", class, Options::default());
    PfFunction::new(card(), Setup::new(Layout::QEMU), TOTAL, make, serve).unwrap()
}

pub(crate) fn pf() -> PfFunction {
    pf_and_made().0
}

/// Memory decoding, bus master.
pub(crate) fn power(function: &dyn PciAccess) {
    function.write_config(4, Width::U16, 6).unwrap();
}

/// A driver of a function.
pub(crate) fn drive(function: &Arc<dyn PciAccess>) -> Rig {
    power(&**function);
    let device = VirtioPci::open(function.clone()).unwrap();
    Rig::new(Device::new(Arc::new(device), Relay::new()).unwrap())
}

pub(crate) fn capability(function: &dyn PciAccess) -> vdpa_pci::pci::SrIov {
    Found::read(function).unwrap().sr_iov.unwrap()
}

pub(crate) fn set(function: &dyn PciAccess, register: u16, value: u16) {
    let at = capability(function).at + register;
    function.write_config(at, Width::U16, value.into()).unwrap();
}

pub(crate) fn enable(pf: &PfFunction, vfs: u16) {
    set(&**pf.function(), sriov::NUM_VFS, vfs);
    set(&**pf.function(), sriov::CONTROL, sriov::VF_ENABLE);
    assert!(capability(&**pf.function()).enabled);
}

pub(crate) fn disable(pf: &PfFunction) {
    set(&**pf.function(), sriov::CONTROL, 0);
}

/// The owner's driver.
pub(crate) struct Owner {
    pub(crate) rig: Rig,
    pub(crate) ctrl: Q,
    pub(crate) command: u64,
    pub(crate) answer: u64,
}

/// Bytes there are for a command, and for its answer.
pub(crate) const ROOM: usize = 2 << 20;

impl Owner {
    /// Uses everything.
    pub(crate) fn new(pf: &PfFunction) -> Self {
        let access: Arc<dyn PciAccess> = pf.function().clone();
        Self::of(drive(&access))
    }

    /// The same, of a function that was opened.
    pub(crate) fn of(rig: Rig) -> Self {
        let features = plain(&rig).with(bits::ADMIN_VQ);
        assert!(features.contains(bits::SR_IOV));
        rig.negotiate(features);
        let ctrl = rig.queue(ADMIN, 16);
        rig.run();
        let (command, answer) = (rig.alloc(ROOM), rig.alloc(ROOM));
        let mut owner = Self {
            rig,
            ctrl,
            command,
            answer,
        };
        for group in [0, 1] {
            let list = owner.well(Opcode::ListQuery, group, 0, &[]);
            owner.well(Opcode::ListUse, group, 0, &list);
        }
        owner.well(
            Opcode::DriverCapSet,
            0,
            0,
            &[0, 0, 0, 0, 0, 0, 0, 0, 32, 32],
        );
        owner
    }

    /// Sends a command.
    pub(crate) fn post(&mut self, op: Opcode, group: u16, member: u16, data: &[u8]) {
        let mut bytes = vec![0; 24];
        bytes[..2].copy_from_slice(&op.number().to_le_bytes());
        bytes[2..4].copy_from_slice(&group.to_le_bytes());
        bytes[16..18].copy_from_slice(&member.to_le_bytes());
        bytes.extend(data);
        self.rig.bytes().write(self.command as usize, &bytes);
        let read = (self.command, bytes.len() as u32);
        let write = (self.answer, ROOM as u32);
        self.ctrl.add(&[read], &[write]).unwrap();
        self.ctrl.publish();
    }

    /// Waits for its answer: status, qualifier, result.
    pub(crate) fn answer(&mut self) -> (u16, u16, Vec<u8>) {
        let done = self.ctrl.wait_used(1);
        let mut said = vec![0; done[0].len as usize];
        self.rig.bytes().read(self.answer as usize, &mut said);
        let short = |at: usize| u16::from_le_bytes([said[at], said[at + 1]]);
        (short(0), short(2), said[8..].to_vec())
    }

    pub(crate) fn ask(
        &mut self,
        op: Opcode,
        group: u16,
        member: u16,
        data: &[u8],
    ) -> (u16, u16, Vec<u8>) {
        self.post(op, group, member, data);
        self.answer()
    }

    pub(crate) fn well(&mut self, op: Opcode, group: u16, member: u16, data: &[u8]) -> Vec<u8> {
        let (status, qualifier, result) = self.ask(op, group, member, data);
        assert_eq!((status, qualifier), (0, 0), "{op:?} of member {member}");
        result
    }

    pub(crate) fn stop(&mut self, member: u16) {
        self.well(Opcode::DevModeSet, 1, member, &[1]);
    }

    pub(crate) fn resume(&mut self, member: u16) {
        self.well(Opcode::DevModeSet, 1, member, &[0]);
    }

    /// Makes an object for getting, 0, and one for setting, 1.
    pub(crate) fn objects(&mut self, member: u16) {
        for (id, purpose) in [(0, 0), (1, 1)] {
            let mut data = [0; 24];
            data[4] = id;
            data[16] = purpose;
            self.well(Opcode::ResourceObjCreate, 1, member, &data);
        }
    }

    pub(crate) fn parts(&mut self, member: u16) -> Vec<Part> {
        let mut data = [0; 16];
        data[8] = 1;
        let parts = self.well(Opcode::DevPartsGet, 1, member, &data);
        Part::parse_all(&parts).unwrap()
    }

    pub(crate) fn set(&mut self, member: u16, parts: &[Part]) -> (u16, u16) {
        let mut data = vec![0, 0, 0, 0, 1, 0, 0, 0];
        data.extend(Part::all_to_bytes(parts));
        let (status, qualifier, _) = self.ask(Opcode::DevPartsSet, 1, member, &data);
        (status, qualifier)
    }
}

pub(crate) fn part(parts: &[Part], kind: PartType, selector: u64) -> &[u8] {
    let name = PartName { kind, selector };
    &parts.iter().find(|part| part.name == name).unwrap().value
}
