//! The status byte, as a front end sees it.

mod rig;

use std::os::unix::net::UnixStream;

use rig::Served;
use vdpa_core::{Status, bits};
use vdpa_vhost_user::{Connection, Front, FrontMessage, ProtocolFeatures};

/// A front end that says the status.
struct Scene {
    served: Served,
    front: Front,
}

impl Scene {
    fn new() -> Self {
        let served = Served::new("sim:net");
        let stream = UnixStream::connect(&served.path).unwrap();
        let mut front = Front::new(Connection::new(stream));
        let wanted = ProtocolFeatures::STATUS | ProtocolFeatures::REPLY_ACK;
        front
            .ask(&FrontMessage::SetProtocolFeatures(wanted))
            .unwrap();
        Self { served, front }
    }

    fn choose(&mut self, features: u64) {
        let set = FrontMessage::SetFeatures(features);
        self.front.ask(&set).unwrap();
    }

    fn write(&mut self, status: Status) -> bool {
        let set = FrontMessage::SetStatus(status.bits());
        self.front.ask(&set).is_ok()
    }

    fn read(&mut self) -> Status {
        let value = self.front.value(&FrontMessage::GetStatus).unwrap();
        Status::from_bits_retain(u8::try_from(value).unwrap())
    }
}

#[test]
fn features_that_do_not_go_together_leave_features_ok_unset_and_others_can_be_chosen() {
    let early = Status::ACKNOWLEDGE | Status::DRIVER;
    let chosen = early | Status::FEATURES_OK;
    let mut scene = Scene::new();
    assert!(scene.write(early));
    // None at all so far.
    assert!(scene.write(chosen));
    assert_eq!(scene.read(), early);
    // A guest's TSO needs its checksums.
    let alone = (bits::VERSION_1 | bits::net::GUEST_TSO4).low_u64();
    scene.choose(alone);
    assert!(scene.write(chosen));
    assert_eq!(scene.read(), early);

    scene.choose(alone | bits::net::GUEST_CSUM.mask().low_u64());
    assert!(scene.write(chosen));
    assert_eq!(scene.read(), chosen);
    let live = chosen | Status::DRIVER_OK;
    assert!(scene.write(live));
    assert_eq!(scene.read(), live);

    // Who goes on all the same is cut off.
    assert!(scene.write(Status::empty()));
    scene.choose(alone);
    assert!(scene.write(chosen));
    assert!(!scene.write(live));
    let said = scene.served.hears("cut off");
    assert!(said.contains("GUEST_TSO4"), "{said}");
    scene.served.end().unwrap();
}

/// A byte may say anything, also what no driver means.
#[test]
fn a_device_that_is_given_up_does_not_start_and_its_front_end_stays() {
    let early = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK;
    let mut scene = Scene::new();
    for byte in [0x8f, 0xcf, 0xff, 0x84, 0x80] {
        scene.choose(bits::VERSION_1.mask().low_u64());
        assert!(scene.write(Status::from_bits_retain(byte)), "{byte:#x}");
        let shown = scene.read();
        assert!(shown.contains(Status::FAILED), "{byte:#x}: {shown:?}");
        assert!(!shown.contains(Status::DRIVER_OK), "{byte:#x}: {shown:?}");
        // Said later, it changes nothing.
        assert!(scene.write(early | Status::DRIVER_OK), "{byte:#x}");
        assert!(!scene.read().contains(Status::DRIVER_OK), "{byte:#x}");
        // It was not for good.
        assert!(scene.write(Status::empty()));
        scene.choose(bits::VERSION_1.mask().low_u64());
        let live = early | Status::DRIVER_OK;
        assert!(scene.write(live));
        assert_eq!(scene.read(), live);
        assert!(scene.write(Status::empty()));
    }
    scene.served.end().unwrap();
}
