//! MSI-X, the interrupt line, the ISR.

use std::sync::atomic::{AtomicBool, Ordering};

use vdpa_core::{Attr, LinkState, MgmtDevice, bits};
use vdpa_pci::{PciAccess, Width};

use crate::bench::*;

/// A network card that runs, with as many vectors of `layout` as it has, each counted.
fn card(layout: &str) -> (Bench, Vec<Count>) {
    let bench = Bench::open("sim:net", layout);
    bench.map();
    bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM | bits::net::STATUS);
    for q in 0..2 {
        bench.enable(q, 16);
    }
    bench.w8(STATUS, 0x0f);
    let has = bench.f.interrupts().msix;
    let counts: Vec<_> = (0..has).map(|_| Count::default()).collect();
    if has > 0 {
        bench.f.enable_vectors(has).unwrap();
    }
    for (vector, count) in (0..).zip(&counts) {
        bench.f.set_vector(vector, count.call()).unwrap();
    }
    (bench, counts)
}

/// Sends an empty frame: queue 1 uses a buffer, and queue 0 would, if it had one.
fn send(bench: &Bench, n: u16) {
    bench.w16(SELECT, 1);
    let (bar, at) = bench.bell();
    bench.offer(1, n);
    bench.f.write(bar, at, Width::U16, 1).unwrap();
    until("a buffer that is used", || bench.used(1) == n);
}

fn set_link(bench: &Bench, link: LinkState) {
    bench.sim.dev_set("sim0", Attr::Link(link)).unwrap();
}

/// Where entry `n` of the MSI-X table is, and the word of the pending bits.
fn entry(bench: &Bench, n: u64) -> (u8, u64, u8, u64) {
    let msix = bench.capabilities(0x11)[0];
    let place = |at| {
        let place = bench.config(msix + at, Width::U32);
        ((place & 7) as u8, u64::from(place & !7))
    };
    let ((bar, table), (pending_bar, pending)) = (place(4), place(8));
    (bar, table + n * 16, pending_bar, pending)
}

/// Statements 122, 123 and 127.
#[test]
fn any_event_goes_to_any_vector_and_what_is_refused_reads_no_vector() {
    for (layout, has) in [
        ("qemu", 4),
        ("vectors-1", 1),
        ("vectors-2", 2),
        ("vectors-2048", 2048),
        ("intx", 0),
    ] {
        let bench = Bench::open("sim:net", layout);
        assert_eq!(bench.f.interrupts().msix, has as u16);
        let msix = bench.capabilities(0x11);
        assert_eq!(msix.is_empty(), has == 0);
        for at in msix {
            assert_eq!(bench.config(at + 2, Width::U16), has - 1);
        }
        for field in [CONFIG_VECTOR, VECTOR] {
            assert_eq!(bench.r16(field), NO_VECTOR, "at first");
            for vector in [0, 1, has.max(1) - 1, has, has + 1, 0xfffe] {
                bench.w16(field, vector);
                let is = if vector < has { vector } else { NO_VECTOR };
                assert_eq!(bench.r16(field), is);
            }
            if has > 0 {
                bench.w16(field, 0);
                assert_eq!(bench.r16(field), 0);
                bench.w16(field, NO_VECTOR);
                assert_eq!(bench.r16(field), NO_VECTOR, "taken back");
            }
        }
    }
}

/// Statements 117, 124, 125 and 128.
#[test]
fn each_event_interrupts_by_its_vector_and_by_none_without() {
    let now = |counts: &[Count]| counts.iter().map(Count::now).collect::<Vec<_>>();
    let (bench, counts) = card("qemu");
    send(&bench, 1);
    set_link(&bench, LinkState::Down);
    until("the change", || bench.read(ISR, 0, Width::U8) & 2 != 0);
    assert_eq!(bench.read(ISR, 0, Width::U8), 0, "reading clears it");
    // What was about to interrupt has ended with it.
    drop(bench);
    assert_eq!(now(&counts), [0, 0, 0, 0], "nothing is mapped to a vector");

    let (bench, counts) = card("qemu");
    bench.w16(CONFIG_VECTOR, 2);
    bench.w16(VECTOR, 1);
    send(&bench, 1);
    until("the call", || counts[1].now() == 1);
    set_link(&bench, LinkState::Down);
    until("the call", || counts[2].now() == 1);
    assert_eq!(bench.read(ISR, 0, Width::U8), 2, "set before the call");
    assert_eq!(now(&counts), [0, 1, 1, 0]);

    // One for both.
    bench.w16(CONFIG_VECTOR, 1);
    set_link(&bench, LinkState::Up);
    until("the call", || counts[1].now() == 2);
    bench.w16(VECTOR, NO_VECTOR);
    bench.w16(CONFIG_VECTOR, NO_VECTOR);
    send(&bench, 2);
    drop(bench);
    assert_eq!(now(&counts), [0, 2, 1, 0]);
}

#[test]
fn a_masked_vector_waits_in_its_pending_bit() {
    let (bench, counts) = card("qemu");
    bench.w16(SELECT, 1);
    bench.w16(VECTOR, 1);
    let (bar, at, pending_bar, pending) = entry(&bench, 1);
    let is_pending = || bench.f.read(pending_bar, pending, Width::U32).unwrap();
    bench.f.write(bar, at + 12, Width::U32, 1).unwrap();
    assert_eq!(bench.f.read(bar, at + 12, Width::U32).unwrap(), 1);
    send(&bench, 1);
    until("the pending bit", || is_pending() == 2);
    assert_eq!(counts[1].now(), 0);
    bench.f.write(bar, at + 12, Width::U32, 0).unwrap();
    assert_eq!((counts[1].now(), is_pending()), (1, 0));

    // The whole function.
    let msix = bench.capabilities(0x11)[0];
    bench.f.write_config(msix + 2, Width::U16, 0xc000).unwrap();
    assert_eq!(bench.config(msix + 2, Width::U16), 0xc003);
    send(&bench, 2);
    until("the pending bit", || is_pending() == 2);
    assert_eq!(counts[1].now(), 1);
    bench.f.write_config(msix + 2, Width::U16, 0x8000).unwrap();
    assert_eq!((counts[1].now(), is_pending()), (2, 0));
    // Address and data are kept, and the pending bits are not written.
    bench.f.write(bar, at + 4, Width::U32, 0xfee0_0000).unwrap();
    assert_eq!(bench.f.read(bar, at + 4, Width::U32).unwrap(), 0xfee0_0000);
    let write = |b: &Bench| b.f.write(pending_bar, pending, Width::U32, 1).unwrap();
    assert!(bench.is_ignored(write));
}

#[test]
fn without_msix_the_line_is_held_until_the_isr_is_read() {
    let (bench, _) = card("intx");
    let line = Count::default();
    assert!(bench.f.enable_vectors(1).is_err());
    bench.f.set_intx(line.call()).unwrap();
    send(&bench, 1);
    until("the line", || line.now() == 1);
    assert_ne!(bench.config(6, Width::U16) & 8, 0, "the line is held");
    // It is masked from then on, and held: once more when it is let go.
    bench.f.unmask_intx().unwrap();
    assert_eq!(line.now(), 2);
    assert_eq!(bench.read(ISR, 0, Width::U8), 1);
    assert_eq!(bench.config(6, Width::U16) & 8, 0);
    bench.f.unmask_intx().unwrap();
    assert_eq!(line.now(), 2, "nothing holds it");

    // Switched off by the command register.
    bench.f.write_config(4, Width::U16, 0x406).unwrap();
    set_link(&bench, LinkState::Down);
    until("the status", || bench.config(6, Width::U16) & 8 != 0);
    assert_eq!(line.now(), 2);
    bench.f.write_config(4, Width::U16, 6).unwrap();
    until("the line", || line.now() == 3);
    assert_eq!(bench.read(ISR, 0, Width::U8), 2);
}

#[test]
fn a_call_that_is_replaced_is_not_made_any_more() {
    let (bench, counts) = card("qemu");
    bench.w16(SELECT, 1);
    bench.w16(VECTOR, 0);
    let other = Count::default();
    send(&bench, 1);
    until("the call", || counts[0].now() == 1);
    bench.f.set_vector(0, other.call()).unwrap();
    assert_eq!(other.now(), 0, "not of itself");
    send(&bench, 2);
    until("the call", || other.now() == 1);
    assert_eq!(counts[0].now(), 1);
    bench.f.enable_vectors(1).unwrap();
    let refused = bench.f.set_vector(1, other.call()).unwrap_err();
    assert!(refused.to_string().contains("1 are"), "{refused}");
    send(&bench, 3);
    assert_eq!(other.now(), 1, "enabled anew, it calls nobody");
    let many = bench.f.enable_vectors(5).unwrap_err().to_string();
    assert!(many.contains("4 MSI-X"), "{many}");
    bench.f.set_intx(other.call()).unwrap();
    bench.f.enable_vectors(4).unwrap();
    assert!(bench.f.set_intx(other.call()).is_err(), "MSI-X is on");
}

#[test]
fn registers_are_read_in_an_interrupt_as_at_any_time() {
    let (bench, _) = card("qemu");
    bench.w16(CONFIG_VECTOR, 0);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let bench = std::sync::Arc::new(bench);
    let call = {
        let (bench, seen) = (std::sync::Arc::downgrade(&bench), seen.clone());
        vdpa_core::Call::from_fn(move || {
            let Some(bench) = bench.upgrade() else { return };
            let isr = bench.read(ISR, 0, Width::U8);
            let read = (isr, bench.r8(STATUS), bench.r8(GENERATION));
            seen.lock().unwrap().push(read);
        })
    };
    bench.f.set_vector(0, call).unwrap();
    let before = bench.r8(GENERATION);
    set_link(&bench, LinkState::Down);
    until("the call", || !seen.lock().unwrap().is_empty());
    let (isr, status, generation) = seen.lock().unwrap()[0];
    assert_eq!((isr, status), (2, 0x0f));
    assert_ne!(generation, before, "the change is seen");
}

#[test]
fn vectors_are_switched_while_a_call_reads_configuration_space() {
    let (bench, _) = card("qemu");
    let bench = std::sync::Arc::new(bench);
    bench.w16(CONFIG_VECTOR, 0);
    let (inside, begun) = (
        std::sync::Arc::new(AtomicBool::new(false)),
        std::sync::Arc::new(AtomicBool::new(false)),
    );
    let call = {
        let (bench, inside, begun) = (
            std::sync::Arc::downgrade(&bench),
            inside.clone(),
            begun.clone(),
        );
        vdpa_core::Call::from_fn(move || {
            let Some(bench) = bench.upgrade() else { return };
            inside.store(true, Ordering::Release);
            let mut more = 10_000;
            while more != 0 {
                bench.config(0, Width::U32);
                std::thread::yield_now();
                more -= u32::from(begun.load(Ordering::Acquire));
            }
        })
    };
    bench.f.set_vector(0, call).unwrap();
    set_link(&bench, LinkState::Down);
    until("the call", || inside.load(Ordering::Acquire));
    let switching = std::thread::spawn({
        let bench = bench.clone();
        move || {
            begun.store(true, Ordering::Release);
            bench.f.enable_vectors(0)
        }
    });
    until("the switch", || switching.is_finished());
    switching.join().unwrap().unwrap();
}

#[test]
fn a_line_that_is_held_shows_in_its_own_byte_of_the_status() {
    let (bench, _) = card("intx");
    send(&bench, 1);
    until("the status", || bench.config(6, Width::U16) & 8 != 0);
    let shown = bench.config(4, Width::U32);
    assert_ne!(shown & 8 << 16, 0);
    assert_eq!(bench.config(6, Width::U8) & 8, 8);
    assert_eq!(bench.config(7, Width::U8), shown >> 24);
}

#[test]
fn a_reset_that_an_interrupt_asks_for_is_made() {
    let (bench, _) = card("qemu");
    let bench = std::sync::Arc::new(bench);
    bench.w16(CONFIG_VECTOR, 0);
    let own = std::sync::Arc::downgrade(&bench);
    let call = vdpa_core::Call::from_fn(move || {
        if let Some(bench) = own.upgrade() {
            bench.w8(STATUS, 0);
        }
    });
    bench.f.set_vector(0, call).unwrap();
    set_link(&bench, LinkState::Down);
    until("the reset", || bench.r8(STATUS) == 0);
    assert_eq!(bench.r16(CONFIG_VECTOR), NO_VECTOR);
    bench.negotiate(bits::VERSION_1 | bits::ACCESS_PLATFORM);
}
