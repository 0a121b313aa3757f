//! Who finds room in an inbox.

use vdpa_core::config::Mac;
use vdpa_core::{Bell, Sleeper};
use vdpa_sim::port::Presence;

use super::*;

fn staged(from: u32) -> Staged {
    let mut batch = FrameBatch::new(1514);
    assert!(batch.push_frame(&[0; 60]));
    let parcel = Parcel { epoch: 1, batch };
    Staged { from, parcel }
}

#[test]
fn who_floods_an_inbox_leaves_room_for_those_that_send_little() {
    let place = Membership::Access(0);
    let mac = Mac::new([2, 0, 0, 0, 0, 1]);
    let end = End::new(
        0,
        "slice".to_owned(),
        place,
        mac,
        true,
        Presence::new(true),
        1,
    );
    let came = &end.ways[0].came;
    let mut coming = Coming::default();
    let fit = |coming: &mut Coming, from| {
        (0..100)
            .take_while(|_| coming.pass(came, staged(from)).is_ok())
            .count()
    };
    // Half of it, half of the rest, and so on: four find room beside each other.
    assert_eq!(fit(&mut coming, 1), CAME / 2);
    assert_eq!(fit(&mut coming, 2), CAME / 4);
    assert_eq!(fit(&mut coming, WIRE), CAME / 8);
    assert_eq!(fit(&mut coming, 3), 1);
    // Whoever waits is told of room, and has as much as before.
    let sleeper = Sleeper::new().unwrap();
    let bell = Bell::new(&sleeper);
    assert_eq!(came.take(&bell).map(|parcel| parcel.epoch), Some(1));
    assert!(bell.take(), "the uplink waits");
    assert_eq!(coming.pass(came, staged(1)).map_err(|_| ()), Err(()));
    for _ in 0..CAME {
        let _taken = came.take(&bell);
    }
    assert_eq!(came.len(), 0);
    assert_eq!(fit(&mut coming, 3), CAME / 2);
}
