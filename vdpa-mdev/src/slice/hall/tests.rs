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

/// A slice at an uplink.
fn seated(core: &Core, number: u32) -> Arc<End> {
    let [.., a, b] = number.to_be_bytes();
    let end = Arc::new(End::new(
        number,
        format!("slice{number}"),
        Membership::Access(0),
        Mac::new([2, 0, 0, 0, a, b]),
        true,
        Presence::new(true),
        1,
    ));
    core.seat(&end);
    end
}

#[test]
fn senders_that_come_and_go_leave_nothing_behind_beside_one_that_does_not_receive() {
    let core = Arc::new(Core::new("device", true).unwrap());
    let mut hall = Hall::new(Arc::clone(&core), 1514);
    let deaf = seated(&core, 0);
    for number in 1..=100 {
        let sender = seated(&core, number);
        hall.refresh();
        hall.members[0].coming[0].staged.push_back(staged(number));
        hall.flush();
        core.leave(&sender);
        hall.refresh();
        hall.tidy();
        assert_eq!(hall.members.len(), 1);
        assert!(hall.members[0].coming[0].staged.is_empty());
    }
    let waiting = deaf.ways[0].came.len() as u64;
    assert!(waiting != 0);
    let lost = deaf.counters.value(Count::Full as usize);
    assert_eq!(waiting + lost, 100);
}

#[test]
fn what_slices_that_have_left_sent_waits_for_the_wire_and_is_bounded() {
    let core = Arc::new(Core::new("device", true).unwrap());
    let mut hall = Hall::new(Arc::clone(&core), 1514);
    let stays = seated(&core, 0);
    let left: Vec<_> = (1..=LEAVING as u32 + 50)
        .map(|number| {
            let sender = seated(&core, number);
            let sent = staged(number).parcel.batch;
            assert!(sender.ways[0].sent.put(sent).is_ok());
            hall.refresh();
            core.leave(&sender);
            hall.refresh();
            hall.tidy();
            sender
        })
        .collect();
    assert_eq!(hall.members.len(), 1 + LEAVING);
    assert!(Arc::ptr_eq(&hall.members[0].end, &stays));
    // The oldest gave way.
    let unsent = |end: &Arc<End>| end.counters.value(Count::Unsent as usize);
    assert!(left[..50].iter().all(|end| unsent(end) == 1));
    assert!(left[50..].iter().all(|end| unsent(end) == 0));
}
