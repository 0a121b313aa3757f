//! What a job asks for, with every answer that a system gives.

use super::*;
use std::sync::Arc;
use vdpa_mem::{Access, AddressSpace, Iova, IovaRange, Mapping, Region};

/// A job on these extents, with pieces of these lengths where it has data.
fn job(action: Action, stable: bool, extents: &[(u64, u64)], pieces: &[u32]) -> Parcel {
    let mut job = Box::<Job>::default();
    job.begin(3, action, stable);
    for &(at, len) in extents {
        job.extend(Extent { at, len });
    }
    let space = AddressSpace::new();
    let mapping = Mapping {
        iova: IovaRange::new(Iova::new(0), 1 << 20).unwrap(),
        memory: Arc::new(Region::anonymous(1 << 20).unwrap()),
        offset: 0,
        access: Access::Both,
        dirty: None,
    };
    space.map(vec![mapping]).unwrap();
    let mut reader = space.reader();
    let section = reader.enter();
    for len in pieces {
        job.hold(section.hold(Iova::new(0), *len, Access::Both).unwrap());
    }
    job
}

/// Lets a job run, with these answers; answers with what it asked for.
fn run(job: &mut Job, answers: &[i64]) -> Vec<Ask> {
    let mut asked = Vec::new();
    let mut answers = answers.iter();
    while let Some(ask) = job.next() {
        let answer = *answers
            .next()
            .unwrap_or_else(|| panic!("no answer to {ask:?}"));
        job.answer(&ask, answer);
        asked.push(ask);
    }
    assert_eq!(answers.next(), None, "it asked for {asked:?} only");
    asked
}

const NOT_HERE: i64 = -(libc::EOPNOTSUPP as i64);

#[test]
fn a_short_transfer_goes_on_where_it_stopped() {
    let mut read = job(Action::Read, false, &[(4096, 1024)], &[512, 100, 412]);
    let asked = run(&mut read, &[100, -i64::from(libc::EINTR), 500, 424]);
    let expected = [(4096, 3), (4196, 3), (4196, 3), (4696, 2)];
    assert_eq!(asked, expected.map(|(at, count)| Ask::Read { at, count }));
    assert!(read.failure().is_none());
    assert_eq!(read.release(), 1024);
}

#[test]
fn a_read_beyond_the_end_of_a_file_that_was_cut_fails() {
    let mut read = job(Action::Read, false, &[(0, 1024)], &[1024]);
    run(&mut read, &[512, 0]);
    let kind = read.failure().unwrap().kind();
    assert_eq!(kind, io::ErrorKind::UnexpectedEof);
    assert_eq!(read.release(), 512);
}

#[test]
fn a_full_disk_fails_the_write_and_nothing_is_asked_for_after_it() {
    let mut write = job(Action::Write, true, &[(0, 1024)], &[1024]);
    run(&mut write, &[512, -i64::from(libc::ENOSPC)]);
    assert_eq!(write.failure().unwrap().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(write.release(), 0, "nothing was written to the driver");
}

#[test]
fn a_system_that_says_again_for_ever_is_not_asked_for_ever() {
    let mut write = job(Action::Write, false, &[(0, 512)], &[512]);
    let again = vec![-i64::from(libc::EAGAIN); PATIENCE as usize + 1];
    run(&mut write, &again);
    assert!(write.failure().is_some());
}

#[test]
fn more_pieces_than_a_call_takes_go_in_several() {
    let pieces = vec![512; MOST + 1];
    let len = 512 * (MOST as u64 + 1);
    let mut write = job(Action::Write, false, &[(0, len)], &pieces);
    let asked = run(&mut write, &[512 * MOST as i64, 512]);
    let first = Ask::Write { at: 0, count: MOST };
    let at = 512 * MOST as u64;
    assert_eq!(asked, [first, Ask::Write { at, count: 1 }]);
}

#[test]
fn zeroes_take_the_first_way_that_the_file_has() {
    let extent = Extent { at: 512, len: 2048 };
    let allocate = |mode| Ask::Allocate { mode, extent };
    let write = || Ask::Write { at: 512, count: 1 };
    let cases: [(bool, &[i64], Vec<Ask>); 4] = [
        (true, &[0], vec![allocate(PUNCH)]),
        (false, &[0], vec![allocate(ZERO_RANGE)]),
        (
            true,
            &[NOT_HERE, 0],
            vec![allocate(PUNCH), allocate(ZERO_RANGE)],
        ),
        (
            false,
            &[NOT_HERE, 2048],
            vec![allocate(ZERO_RANGE), write()],
        ),
    ];
    for (unmap, answers, expected) in cases {
        let mut zero = job(Action::Zero { unmap }, false, &[(512, 2048)], &[]);
        assert_eq!(run(&mut zero, answers), expected);
        assert!(zero.failure().is_none());
        assert_eq!(zero.release(), 0);
    }
}

#[test]
fn many_zeroes_are_written_in_bounded_writes_over_all_extents() {
    let big = 3 << 20;
    let mut erase = job(Action::Erase, false, &[(0, big), (8 << 20, 512)], &[]);
    let one = 1 << 20;
    let asked = run(&mut erase, &[one, one, one - 512, 512, 512, 0]);
    let count = ZERO_PIECES;
    let at = |at| Ask::Write { at, count };
    let last = big - 512;
    let expected = [
        at(0),
        at(1 << 20),
        at(2 << 20),
        Ask::Write { at: last, count: 1 },
        Ask::Write {
            at: 8 << 20,
            count: 1,
        },
        Ask::Sync,
    ];
    assert_eq!(asked, expected);
}

#[test]
fn what_has_to_be_durable_ends_with_a_sync_and_nothing_else_does() {
    let count = |action, stable, answers: &[i64]| {
        let pieces: &[u32] = match action {
            Action::Read | Action::Write => &[512],
            _ => &[],
        };
        let extents: &[(u64, u64)] = match action {
            Action::Flush => &[],
            _ => &[(0, 512)],
        };
        let mut job = job(action, stable, extents, pieces);
        let asked = run(&mut job, answers);
        asked.iter().filter(|ask| **ask == Ask::Sync).count()
    };
    assert_eq!(count(Action::Flush, false, &[0]), 1);
    assert_eq!(count(Action::Discard, false, &[0]), 0);
    assert_eq!(count(Action::Discard, true, &[0, 0]), 1);
    assert_eq!(count(Action::Discard, true, &[NOT_HERE, 0]), 1);
    assert_eq!(count(Action::Zero { unmap: true }, true, &[0, 0]), 1);
    assert_eq!(count(Action::Erase, false, &[512, 0]), 1);
    // By a flag of the write itself.
    assert_eq!(count(Action::Write, true, &[512]), 0);
    assert_eq!(count(Action::Read, true, &[512]), 0);
}

#[test]
fn a_job_that_is_used_again_remembers_nothing() {
    let mut again = job(Action::Write, true, &[(0, 1024)], &[1024]);
    run(&mut again, &[512, -i64::from(libc::EIO)]);
    again.release();
    again.begin(5, Action::Flush, false);
    assert_eq!(run(&mut again, &[0]), [Ask::Sync]);
    assert!(again.failure().is_none() && again.extents().is_empty());
}
