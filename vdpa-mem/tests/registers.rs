//! Device registers, with a file of our own in the part of the device.
#![cfg(all(feature = "std", not(loom), not(miri)))]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vdpa_mem::{MemError, Registers};

const PAGE: u64 = 4096;

/// A file in the part of a device, and its registers from the second page on.
fn device(len: u64) -> (File, Registers) {
    let file: OwnedFd = memfd_create("device", MFdFlags::MFD_CLOEXEC).unwrap();
    let file = File::from(file);
    file.set_len(PAGE + len).unwrap();
    let registers = Registers::map(file.as_fd(), PAGE, len).unwrap();
    (file, registers)
}

/// What the device itself has there.
fn byte(file: &File, at: u64) -> u8 {
    let mut byte = [0];
    file.read_exact_at(&mut byte, PAGE + at).unwrap();
    byte[0]
}

#[test]
fn each_width_is_little_endian_and_where_it_is_asked_for() {
    let (file, registers) = device(8192);
    assert_eq!(registers.len(), 8192);
    assert_eq!(registers.file().1, PAGE);
    registers.write_u32(4, 0x0403_0201).unwrap();
    registers.write_u16(8, 0x0605).unwrap();
    registers.write_u8(8191, 7).unwrap();
    let there: Vec<u8> = (4..10).map(|at| byte(&file, at)).collect();
    assert_eq!(there, [1, 2, 3, 4, 5, 6]);
    assert_eq!(byte(&file, 8191), 7);
    file.write_all_at(&[0xaa, 0xbb, 0xcc, 0xdd], PAGE + 12)
        .unwrap();
    assert_eq!(registers.read_u32(12).unwrap(), 0xddcc_bbaa);
    assert_eq!(registers.read_u16(14).unwrap(), 0xddcc);
    assert_eq!(registers.read_u8(13).unwrap(), 0xbb);
}

#[test]
fn registers_that_are_dropped_are_not_mapped_any_more() {
    let file = memfd_create("dropped", MFdFlags::MFD_CLOEXEC).unwrap();
    let file = File::from(file);
    file.set_len(PAGE).unwrap();
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("dropped")).count()
    };
    let registers = Registers::map(file.as_fd(), 0, PAGE).unwrap();
    assert_eq!(mapped(), 1);
    drop(registers);
    assert_eq!(mapped(), 0);
}

#[test]
fn an_access_out_of_bounds_or_between_registers_is_refused_with_the_numbers() {
    let (file, registers) = device(10);
    let error = registers.read_u32(8).unwrap_err();
    assert!(matches!(
        error,
        MemError::Register {
            at: 8,
            width: 4,
            len: 10
        }
    ));
    assert!(error.to_string().contains("4 bytes at 0x8"), "{error}");
    assert!(registers.read_u16(8).is_ok());
    for at in [1, 2, 3, 5, 10, u64::MAX, u64::MAX - 3] {
        assert!(registers.read_u32(at).is_err(), "{at}");
        assert!(registers.write_u32(at, 1).is_err(), "{at}");
    }
    assert!(registers.write_u16(3, 1).is_err());
    assert!(registers.write_u8(10, 1).is_err());
    let registers = Arc::new(registers);
    assert!(registers.register::<u16>(9).is_err());
    assert!(registers.register::<u32>(8).is_err());
    assert!(
        (0..10).all(|at| byte(&file, at) == 0),
        "nothing came through"
    );
}

#[test]
fn what_cannot_be_mapped_is_refused_by_the_numbers() {
    let (file, _registers) = device(PAGE);
    let refused = |offset, len| {
        Registers::map(file.as_fd(), offset, len)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(12, 4).contains("multiple of 0x1000"));
    assert!(refused(0, 0).contains("cannot map 0x0 bytes"));
    assert!(refused(PAGE, PAGE + 1).contains("0x2001 bytes of their file, which has 0x2000"));
    assert!(refused(PAGE, u64::MAX).contains("cannot map"));
    let (reading, _writing) = nix::unistd::pipe().unwrap();
    assert!(Registers::map(reading.as_fd(), 0, PAGE).is_err(), "a pipe");
}

#[test]
fn revoked_registers_do_nothing_read_as_all_ones_and_let_go_of_the_file() {
    let (file, registers) = device(2 * PAGE);
    let registers = Arc::new(registers);
    let doorbell = registers.register::<u16>(PAGE + 2).unwrap();
    assert_eq!(doorbell.page(), (2 * PAGE, 2));
    doorbell.write(0x0102);
    assert_eq!((byte(&file, PAGE + 2), byte(&file, PAGE + 3)), (2, 1));
    let stood_for = |registers: &Registers| {
        let number = registers.file().0.as_raw_fd();
        std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap()
    };
    assert!(stood_for(&registers).to_string_lossy().contains("device"));
    for _ in 0..2 {
        registers.revoke().unwrap();
        assert!(registers.is_revoked());
        doorbell.clone().write(0x0304);
        registers.write_u32(0, 5).unwrap();
        assert_eq!((byte(&file, PAGE + 2), byte(&file, PAGE + 3)), (2, 1));
        assert_eq!(byte(&file, 0), 0);
        assert_eq!(registers.read_u32(0).unwrap(), u32::MAX);
        assert_eq!(registers.read_u16(2).unwrap(), u16::MAX);
        assert_eq!(registers.read_u8(1).unwrap(), u8::MAX);
    }
    assert!(!stood_for(&registers).to_string_lossy().contains("device"));
    // Whoever maps the page later maps nothing of the device either, and does not die of it.
    let (fd, offset) = registers.file();
    let late = Registers::map(fd, offset, 2 * PAGE).unwrap();
    late.write_u8(0, 9).unwrap();
    assert_eq!(byte(&file, 0), 0);
}

#[test]
fn revoke_under_threads_that_write_and_read_ends_all_writes_and_tears_nothing() {
    let (file, registers) = device(PAGE);
    let registers = Arc::new(registers);
    registers.write_u32(4, 0x1234_5678).unwrap();
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let doorbell = registers.register::<u32>(0).unwrap();
        let (stop, written) = (&stop, &written);
        scope.spawn(move || {
            for value in 1.. {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                doorbell.write(value);
                written.store(u64::from(value), Ordering::Release);
            }
        });
        let reading = Arc::clone(&registers);
        scope.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                // What is in the page that takes the place is never shown.
                let read = reading.read_u32(4).unwrap();
                assert!(read == 0x1234_5678 || read == u32::MAX, "{read:#x}");
            }
        });
        let passes = |from: u64| {
            while written.load(Ordering::Acquire) < from + 100 {
                std::thread::yield_now();
            }
        };
        passes(0);
        registers.revoke().unwrap();
        let at_the_end = word(&file);
        // It goes on to write, into nothing.
        passes(written.load(Ordering::Acquire));
        assert_eq!(word(&file), at_the_end);
        stop.store(true, Ordering::Release);
    });
    assert_eq!(registers.read_u32(4).unwrap(), u32::MAX);
}

fn word(file: &File) -> u32 {
    let mut word = [0; 4];
    file.read_exact_at(&mut word, PAGE).unwrap();
    u32::from_le_bytes(word)
}

#[test]
fn a_device_that_the_system_takes_away_reads_as_all_ones_and_does_not_end_the_process() {
    vdpa_mem::survive_shrinking().unwrap();
    let (file, registers) = device(PAGE);
    registers.write_u32(0, 1).unwrap();
    assert_eq!(registers.read_u32(0).unwrap(), 1);
    file.set_len(PAGE).unwrap();
    registers.write_u32(0, 2).unwrap();
    assert_eq!(registers.read_u32(0).unwrap(), u32::MAX);
    assert!(!registers.is_revoked());
}

#[test]
fn a_register_outlives_the_handle_that_it_came_from() {
    let (file, registers) = device(PAGE);
    let registers = Arc::new(registers);
    let register = registers.register::<u16>(4).unwrap();
    drop(registers);
    register.write(3);
    assert_eq!(byte(&file, 4), 3);
    assert_eq!(register.at(), 4);
    assert_eq!(register.registers().len(), PAGE);
}

#[test]
fn no_write_reaches_the_device_once_a_revoke_has_returned_though_another_thread_is_at_one() {
    const LARGE: u64 = 32 << 20;
    for _ in 0..8 {
        let (file, registers) = device(LARGE);
        // Pages that are there take a while to be taken away, the last one last.
        for page in 0..LARGE / PAGE {
            registers.write_u8(page * PAGE, 1).unwrap();
        }
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            for at in [LARGE - 2, LARGE - 1] {
                let (registers, together) = (&registers, &together);
                scope.spawn(move || {
                    together.wait();
                    registers.revoke().unwrap();
                    registers.write_u8(at, 7).unwrap();
                });
            }
        });
        assert_eq!((byte(&file, LARGE - 2), byte(&file, LARGE - 1)), (0, 0));
    }
}
