//! The administration queue through a session, and device strings alone.

use vdpa_core::session::{Completions, Part, Queue, QueueSetup};
use vdpa_core::*;
use vdpa_sim::pf::command::{COMMAND_HEADER, Opcode, REPLY_HEADER};

use crate::rig::*;

/// Which devices a command is for.
#[derive(Clone, Copy)]
enum To {
    Itself,
    Member(u16),
}

/// A driver of an administration queue.
struct Admin<'q> {
    queue: &'q mut Queue,
    done: Completions,
}

/// What came of a command.
#[derive(PartialEq, Eq, Debug)]
struct Answer {
    status: u16,
    qualifier: u16,
    result: Vec<u8>,
}

impl Admin<'_> {
    /// * `room`: bytes for the result
    fn ask(&mut self, opcode: Opcode, to: To, data: &[u8], room: usize) -> Answer {
        let (group, member) = match to {
            To::Itself => (0_u16, 0),
            To::Member(member) => (1, u64::from(member)),
        };
        let mut command = vec![0; COMMAND_HEADER];
        command[..2].copy_from_slice(&opcode.number().to_le_bytes());
        command[2..4].copy_from_slice(&group.to_le_bytes());
        command[16..].copy_from_slice(&member.to_le_bytes());
        command.extend(data);
        let (asked, answered) = (command.len(), REPLY_HEADER + room);
        let lease = self.queue.lease().unwrap();
        self.queue.write(&lease, 0, &command);
        let parts = [
            Part::Readable(asked as u32),
            Part::Writable(answered as u32),
        ];
        self.queue.submit(lease, &parts).unwrap();
        self.queue.publish();
        while self.queue.poll(&mut self.done).unwrap() == 0 {
            assert!(self.queue.wait(soon()).unwrap(), "no answer");
        }
        let back = self.done.pop().unwrap();
        // What the device left out is zero.
        let mut answer = vec![0; answered];
        let len = back.len as usize;
        self.queue.read(&back.lease, asked, &mut answer[..len]);
        self.queue.put(back.lease);
        let short = |at: usize| u16::from_le_bytes([answer[at], answer[at + 1]]);
        Answer {
            status: short(0),
            qualifier: short(2),
            result: answer[REPLY_HEADER..len.max(REPLY_HEADER)].to_vec(),
        }
    }

    /// Asks for what there is, and says that all of it is used.
    fn use_all(&mut self, to: To) {
        let list = self.ask(Opcode::ListQuery, to, &[], 8);
        assert_eq!((list.status, list.result.len()), (0, 8));
        assert_eq!(self.ask(Opcode::ListUse, to, &list.result, 0), OK);
    }
}

const OK: Answer = Answer {
    status: 0,
    qualifier: 0,
    result: Vec::new(),
};

#[test]
fn a_session_drives_the_administration_queue() {
    let lab = Lab::new();
    for extra in [Features::NONE, bits::RING_PACKED.mask()] {
        let device = lab.registry.open("sim:net,as=pf,vfs=2").unwrap();
        // The last of all queues.
        let queue = QueueIndex::new(device.info().queues - 1);
        let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
        let features = Features::of(&[bits::VERSION_1, bits::ACCESS_PLATFORM, bits::ADMIN_VQ]);
        let session = session.negotiate(features | extra);
        let mut session = session.map_err(|(_, e)| e).unwrap();
        let setup = QueueSetup {
            size: 8,
            buffers: 8,
            buffer_len: 1024,
            ..QueueSetup::default()
        };
        session.queue(queue, setup).unwrap();
        let mut session = session.run().map_err(|(_, e)| e).unwrap();
        let mut admin = Admin {
            queue: session.queue_mut(queue).unwrap(),
            done: Completions::new(8),
        };
        admin.use_all(To::Itself);
        admin.use_all(To::Member(0));
        for mode in [1, 1, 0, 0] {
            for member in [1, 2] {
                let answer = admin.ask(Opcode::DevModeSet, To::Member(member), &[mode], 0);
                assert_eq!(answer, OK);
            }
        }
        let none = admin.ask(Opcode::DevModeSet, To::Member(3), &[1], 0);
        assert_eq!((none.status, none.qualifier), (22, 5));
        drop(session.close(soon()).map_err(|(_, e)| e).unwrap());
    }
}
