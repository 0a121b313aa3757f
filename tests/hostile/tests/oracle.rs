//! The oracle itself: what it must not let pass. One test, since it looks at the whole process.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::time::Duration;

use vdpa_hostile::background::Sibling;
use vdpa_hostile::guard::Arena;
use vdpa_hostile::raw::Piece;
use vdpa_hostile::stage::{Expect, HOUSE, Setup, Stage};
use vdpa_hostile::table::Target;
use vdpa_hostile::watch::{self, Watch};
use vdpa_hostile::{oracle, wait};
use vdpa_mem::Access;
use vdpa_ring::Format;

/// Set in the process that is to die.
const TRESPASS: &str = "VDPA_HOSTILE_TRESPASS";

fn main() -> ExitCode {
    if std::env::var_os(TRESPASS).is_some() {
        trespass();
        return ExitCode::SUCCESS;
    }
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    watch::count_panics();
    let trial = |name: &str, test: fn()| {
        libtest_mimic::Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = vec![
        trial(
            "rows_that_are_wrong_do_not_pass",
            rows_that_are_wrong_do_not_pass,
        ),
        trial(
            "what_is_left_behind_is_noticed",
            what_is_left_behind_is_noticed,
        ),
        trial(
            "an_access_beyond_memory_ends_the_process",
            an_access_beyond_memory_ends_the_process,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What the oracle says of a row.
fn verdict(row: fn(&mut Stage) -> Expect) -> String {
    let judged = catch_unwind(AssertUnwindSafe(|| {
        oracle::judge(Target::Blk, Format::Split, Setup::PLAIN, row);
    }));
    let Err(why) = judged else {
        return "it passes".into();
    };
    let said = why.downcast_ref::<String>().cloned();
    said.or_else(|| why.downcast_ref::<&str>().map(|said| (*said).to_owned()))
        .unwrap_or_default()
}

/// A chain that loops.
fn lose(s: &mut Stage) {
    let at = s.buffer(0);
    s.send(&[Piece::read(at, 1).goes_on(true).link(0)]);
    let lost = wait("the loss", || s.is_lost());
    lost.expect("a chain that loops loses the queue");
}

fn rows_that_are_wrong_do_not_pass() {
    type Row = fn(&mut Stage) -> Expect;
    let rows: [(&str, Row); 9] = [
        ("it passes", |s| {
            s.still_works();
            Expect::Served
        }),
        ("a thread panicked", |s| {
            let panics = std::thread::spawn(|| panic!("as it should"));
            assert!(panics.join().is_err());
            s.still_works();
            Expect::Served
        }),
        ("nobody may write there", |s| {
            s.buffers.bytes().write(7777, &[1]);
            Expect::Served
        }),
        ("nobody may write there", |s| {
            // Nor in the ring, where it is the driver's.
            let at = s.q.driver_at(2);
            s.rings.bytes().write(at + 30, &[1]);
            Expect::Served
        }),
        ("nothing was lost", |s| {
            lose(s);
            Expect::Served
        }),
        (
            "instead of the loss of queue 0 since \"another reason\"",
            |s| {
                lose(s);
                Expect::Lost("another reason")
            },
        ),
        ("chains came back of", |s| {
            s.still_works();
            s.q.shown -= 1;
            Expect::Served
        }),
        ("a bad chain came back with length 513", |s| {
            let request = s.request();
            s.send(&request.pieces());
            Expect::Back
        }),
        ("the sibling Queue", |s| {
            let device = wait("an exchange", || s.background.done(Sibling::Device) > 0);
            device.expect("the sibling device goes on");
            // Its data changes on its way.
            static VALUES: [[u8; 64]; 2] = [[1; 64], [2; 64]];
            let _flip = s.flip(&[HOUSE + (16 << 10) + 2048 + 100], &VALUES);
            let failed = wait("a failure", || s.background.check().is_err());
            failed.expect("data that changes is noticed");
            Expect::Served
        }),
    ];
    for (right, row) in rows {
        let said = verdict(row);
        assert!(said.contains(right), "{said:?} instead of {right:?}");
    }
}

fn what_is_left_behind_is_noticed() {
    let moment = Duration::from_millis(100);
    let watch = Watch::begin();
    watch.check().expect("nothing is left behind");
    let file = File::open("/dev/null").expect("a file");
    let said = watch.check_within(moment).expect_err("a descriptor");
    assert!(said.contains("baseline"), "{said}");
    drop(file);
    watch.check().expect("it is closed");

    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    watch.check_within(moment).expect_err("a thread");
    drop(stop);
    assert!(thread.join().is_ok());
    watch.check().expect("it is over");

    let arenas: Vec<_> = (0..40)
        .map(|_| Arena::new(HOUSE, 4096, Access::Both))
        .collect();
    watch.check_within(moment).expect_err("mappings");
    drop(arenas);
    watch.check().expect("they are gone");

    // A thread that spins does not rest.
    let spins = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let seen = std::sync::Arc::clone(&spins);
    let thread = std::thread::spawn(move || {
        while seen.load(std::sync::atomic::Ordering::SeqCst) {
            std::hint::spin_loop();
        }
    });
    watch::rest_within(moment).expect_err("a thread that spins");
    spins.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(thread.join().is_ok());
}

/// Touches the byte behind guarded memory, by way of a span that is too long.
#[allow(unsafe_code, reason = "does what must end a process")]
fn trespass() {
    let arena = Arena::new(HOUSE, 4096, Access::Both);
    let beyond = arena.bytes().hva();
    let at = (beyond.get() as usize + 4096) as *const u8;
    // SAFETY: none; nothing is mapped there, and the process ends.
    unsafe { at.read_volatile() };
}

fn an_access_beyond_memory_ends_the_process() {
    let exe = std::env::current_exe().expect("this program");
    let ended = Command::new(exe)
        .env(TRESPASS, "yes")
        .output()
        .expect("a process");
    assert!(!ended.status.success(), "it read what nobody has");
}
