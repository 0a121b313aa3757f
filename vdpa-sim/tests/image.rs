//! A disk in a file: by io_uring and by threads, and everything that can be wrong with an image.

mod disk;
mod rig;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use disk::*;
use rig::{Lab, soon, until};
use vdpa_core::{Attr, Event, MgmtDevice};

const ENGINES: [&str; 2] = ["uring", "threads"];

/// An image of `bytes` zeroes in a directory of its own.
struct Home {
    dir: tempfile::TempDir,
    path: PathBuf,
}

fn home(bytes: u64) -> Home {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    Home { dir, path }
}

impl Home {
    fn spec(&self, more: &str) -> String {
        format!("sim:blk,file={}{more}", self.path.display())
    }
}

/// Why a device string is refused.
fn refused(spec: &str) -> String {
    let error = Lab::new().registry.open(spec).unwrap_err();
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

#[test]
fn what_is_written_is_in_the_file_and_is_read_back_in_both_rings_by_both_ways() {
    for engine in ENGINES {
        for packed in [false, true] {
            let home = home(1 << 20);
            let mut disk = Disk::packed(&home.spec(&format!(",io={engine}")), packed);
            let by_ring = u64::from(engine == "uring");
            assert_eq!(disk.rig.stat("image.io_uring_queues"), by_ring);
            assert_eq!(disk.rig.stat("image.thread_queues"), 1 - by_ring);
            for (i, (len, piece)) in [
                (512, usize::MAX),
                (4096, 512),
                (1024, 100),
                (512, 41),
                (65536, 8192),
                (131_072, 8000),
            ]
            .into_iter()
            .enumerate()
            {
                let sector = 3 + 260 * i as u64;
                let data = disk.there_and_back(sector, len, piece);
                let mut there = vec![0; len];
                let file = File::open(&home.path).unwrap();
                file.read_exact_at(&mut there, sector * 512).unwrap();
                assert!(there == data, "in the file");
            }
            assert_eq!(disk.status(FLUSH, 0, &[]), OK);
            assert_eq!(disk.rig.stat("queue0.bytes.read"), 202_752);
        }
    }
}

#[test]
fn more_pieces_than_a_system_call_takes_are_one_request() {
    for engine in ENGINES {
        let home = home(1 << 20);
        let rig = Lab::new().open(&home.spec(&format!(",io={engine},queue_size=4096")));
        rig.negotiate(features(&rig, false, false, true, false));
        let mut q = rig.queue(0, 4096);
        rig.run();
        let (at, to) = (rig.alloc(64), rig.alloc(2 << 20));
        let data = pattern(1, 2048 * 64);
        for (kind, far) in [(OUT, false), (IN, true)] {
            rig.bytes().write(at as usize, &header(kind, 0));
            // Apart from each other, so that no two are one.
            let pieces: Vec<_> = (0..2048).map(|i| (to + 1024 * i, 64)).collect();
            for (i, (piece, _)) in pieces.iter().enumerate() {
                match far {
                    true => rig.bytes().zero(*piece as usize, 64),
                    false => rig.bytes().write(*piece as usize, &data[64 * i..][..64]),
                };
            }
            let (head, status) = ((at, 16), (at + 32, 1));
            let added = match far {
                true => q.add(&[head], &[pieces.as_slice(), &[status]].concat()),
                false => q.add(&[&[head], pieces.as_slice()].concat(), &[status]),
            };
            added.unwrap();
            q.publish();
            let len = if far { 131_073 } else { 1 };
            assert_eq!(q.wait_used(1)[0].len, len);
            for (i, (piece, _)) in pieces.iter().enumerate() {
                let mut there = [0; 64];
                rig.bytes().read(*piece as usize, &mut there);
                assert!(there == data[64 * i..][..64], "piece {i}");
            }
        }
    }
}

#[test]
fn a_discard_punches_holes_and_zeroes_are_zeroes_in_the_file() {
    for engine in ENGINES {
        let home = home(4 << 20);
        fs::write(&home.path, vec![7; 4 << 20]).unwrap();
        let mut disk = Disk::open(&home.spec(&format!(",io={engine}")));
        let blocks = || fs::metadata(&home.path).unwrap().blocks();
        let full = blocks();
        assert_eq!(disk.status(DISCARD, 0, &segment(0, 2048, 0)), OK);
        let after = blocks();
        assert!(after + 1024 < full, "{after} of {full} blocks are left");
        assert_eq!(disk.read(2040, 8192)[..4096], [0; 4096]);
        for (kind, flags) in [(WRITE_ZEROES, 0), (WRITE_ZEROES, 1), (SECURE_ERASE, 0)] {
            disk.write(3000, &[9; 8192]);
            let two = [segment(3001, 2, flags), segment(3008, 4, flags)].concat();
            assert_eq!(disk.status(kind, 0, &two), OK);
            let mut expected = vec![9; 8192];
            expected[512..1536].fill(0);
            expected[4096..6144].fill(0);
            assert_eq!(disk.read(3000, 8192), expected, "type {kind} {flags}");
        }
        let config = disk.config();
        let most = config.max_secure_erase_sectors();
        assert_eq!(disk.status(SECURE_ERASE, 0, &segment(0, most, 0)), OK);
        assert_eq!(fs::metadata(&home.path).unwrap().len(), 4 << 20);
    }
}

#[test]
fn many_requests_on_many_queues_are_each_done_once() {
    for engine in ENGINES {
        for in_order in [false, true] {
            let home = home(1 << 20);
            let spec = home.spec(&format!(",io={engine},queues=3,workers=2"));
            let rig = Lab::new().open(&spec);
            rig.negotiate(features(&rig, true, true, true, in_order));
            let queues: Vec<_> = (0..3).map(|q| rig.queue(q, 64)).collect();
            let buffers: Vec<_> = (0..3 * 32).map(|_| rig.alloc(2048)).collect();
            rig.run();
            std::thread::scope(|s| {
                for (number, mut q) in queues.into_iter().enumerate() {
                    let buffers = &buffers[number * 32..][..32];
                    let window = rig.window.clone();
                    s.spawn(move || {
                        let bytes = window.bytes();
                        for round in 0..60_u64 {
                            let kind = if round % 2 == 0 { OUT } else { IN };
                            for (i, at) in (0_u64..).zip(buffers) {
                                let sector = number as u64 * 32 + i;
                                let data = pattern((round / 2) << 8 | sector, 512);
                                let at = *at as usize;
                                bytes.write(at, &header(kind, sector));
                                bytes.write(at + 1024, &[NONE]);
                                let at = at as u64;
                                let added = if kind == OUT {
                                    bytes.write(at as usize + 16, &data);
                                    q.add(&[(at, 528)], &[(at + 1024, 1)])
                                } else {
                                    bytes.zero(at as usize + 16, 512);
                                    q.add(&[(at, 16)], &[(at + 16, 512), (at + 1024, 1)])
                                };
                                added.unwrap();
                            }
                            q.publish();
                            q.wait_used(32);
                            for (i, at) in (0_u64..).zip(buffers) {
                                let sector = number as u64 * 32 + i;
                                let (mut data, mut status) = ([0; 512], [NONE]);
                                bytes.read(*at as usize + 16, &mut data);
                                bytes.read(*at as usize + 1024, &mut status);
                                assert_eq!(status, [OK]);
                                let expected = pattern((round / 2) << 8 | sector, 512);
                                assert!(data.to_vec() == expected, "sector {sector}");
                            }
                        }
                    });
                }
            });
            assert_eq!(rig.total("requests.read"), 3 * 32 * 30);
        }
    }
}

#[test]
fn an_image_that_is_cut_under_the_device_is_an_error_and_no_signal() {
    for engine in ENGINES {
        let home = home(1 << 20);
        let mut disk = Disk::open(&home.spec(&format!(",io={engine}")));
        disk.write(0, &[1; 512]);
        let file = File::options().write(true).open(&home.path).unwrap();
        file.set_len(4096 + 100).unwrap();
        assert_eq!(disk.request(IN, 100, &[], 512).status, IOERR);
        // Over the end, what is there is there; the rest is not.
        let reply = disk.request(IN, 8, &[], 512);
        assert_eq!((reply.status, reply.len), (IOERR, 101));
        assert_eq!(disk.read(0, 512), [1; 512]);
        assert_eq!(disk.rig.stat("queue0.errors.backend"), 2);
        file.set_len(1 << 20).unwrap();
        assert_eq!(disk.read(100, 512), [0; 512], "it goes on");
    }
}

#[test]
fn a_disk_grows_with_its_file_and_shrinks_without() {
    for engine in ENGINES {
        let home = home(1 << 20);
        let lab = Lab::new();
        let rig = lab.open(&home.spec(&format!(",io={engine}")));
        let all = features(&rig, false, true, true, false);
        let mut disk = Disk::with(rig, all);
        let events = disk.rig.device.events().unwrap();
        let name = disk.rig.device.info().name.clone();
        let set = |sectors| lab.sim.dev_set(&name, Attr::Capacity(sectors));
        let len = || fs::metadata(&home.path).unwrap().len();
        set(4096).unwrap();
        assert_eq!(events.wait(soon()).unwrap(), Some(Event::Config));
        assert_eq!((len(), disk.config().capacity()), (2 << 20, 4096));
        disk.write(4095, &[3; 512]);
        set(1024).unwrap();
        assert_eq!(len(), 2 << 20, "what is in it is kept");
        assert_eq!(disk.request(IN, 1024, &[], 512).status, IOERR);
        set(4096).unwrap();
        assert_eq!(disk.read(4095, 512), [3; 512]);
        // More than any file system has.
        let why = set((i64::MAX >> 9) as u64).unwrap_err().to_string();
        assert!(why.contains("capacity"), "{why}");
        assert_eq!(disk.config().capacity(), 4096);
    }
}

#[test]
fn what_is_wrong_with_an_image_is_said_with_a_way_out() {
    let home = home(1 << 20);
    let path = |name: &str| home.dir.path().join(name);
    let of = |path: &Path, more: &str| refused(&format!("sim:blk,file={}{more}", path.display()));
    let why = of(&path("missing.img"), "");
    assert!(
        why.contains("missing.img") && why.contains("truncate -s"),
        "{why}"
    );
    for ro in ["", ",ro=on"] {
        let why = of(home.dir.path(), ro);
        assert!(why.contains("is a directory"), "{why}");
    }
    let why = of(Path::new("/dev/null"), "");
    assert!(why.contains("character device"), "{why}");
    File::create(path("empty.img")).unwrap();
    let why = of(&path("empty.img"), "");
    assert!(why.contains("is empty"), "{why}");
    for (len, more, unit) in [(1000, "", 512), (4608, ",blk_size=4096", 4096)] {
        fs::write(path("odd.img"), vec![0; len]).unwrap();
        let why = of(&path("odd.img"), more);
        let parts = [format!("{len} bytes"), format!("-s %{unit}")];
        assert!(parts.iter().all(|part| why.contains(part)), "{why}");
    }
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let why = of(&path("pipe"), "");
    assert!(why.contains("pipe"), "{why}");
    for (more, part) in [
        (",size=1M", "size"),
        (",blk_size=1000", "power of two"),
        (",io=fast", "uring"),
        (",serial=", "printable"),
        (",serial=abcdefghijklmnopqrstu", "20"),
        (",io_threads=0", "64"),
        (",queues=129", "128"),
    ] {
        let why = of(&home.path, more);
        assert!(why.contains(part), "{more}: {why}");
    }
    let why = refused("sim:blk,size=1M,io=uring");
    assert!(why.contains("io"), "{why}");
    assert!(refused("sim:blk,size=1000").contains("512"));
}

#[test]
fn an_image_that_may_not_be_written_is_served_read_only_when_that_is_asked_for() {
    let home = home(1 << 20);
    fs::set_permissions(home.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&home.path, fs::Permissions::from_mode(0o444)).unwrap();
    let (write, read) = (home.spec(""), home.spec(",ro=on"));
    // A thread of its own: who root is to the file system is a thread's own affair.
    let tested = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        let why = refused(&write);
        assert!(why.contains("ro=on") && why.contains("ermission"), "{why}");
        let mut disk = Disk::open(&read);
        assert_eq!(disk.read(0, 512), [0; 512]);
        assert_eq!(disk.status(OUT, 0, &[1; 512]), IOERR);
    });
    tested.join().unwrap();
}

#[test]
fn one_image_is_written_by_one_device_and_read_by_any_number() {
    let home = home(1 << 20);
    let writer = Lab::new().open(&home.spec(""));
    for more in ["", ",ro=on"] {
        let why = refused(&home.spec(more));
        assert!(
            why.contains("in use") && why.contains("for writing"),
            "{why}"
        );
    }
    // Where somebody else sees to it that they take turns.
    Lab::new().open(&home.spec(",lock=off")).close();
    writer.close();
    let readers = [Lab::new(), Lab::new()].map(|lab| lab.open(&home.spec(",ro=on")));
    let why = refused(&home.spec(""));
    assert!(why.contains("for reading"), "{why}");
    drop(readers);
    Lab::new().open(&home.spec("")).close();
}

/// Has the system refuse io_uring to this thread and to those that it starts, as the filter of a container does.
#[allow(
    unsafe_code,
    reason = "a seccomp filter is installed by a raw system call"
)]
fn refuse_io_uring() {
    let step = |code: u32, k: u32, jt: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    let allow = step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0);
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let number = libc::SYS_io_uring_setup as u32;
    let mut filter = [
        // The number of the call; one further if it is the one.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 1),
        allow,
        step(libc::BPF_RET | libc::BPF_K, refuse, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes plain numbers.
    let alone = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program is valid for the call, which copies it.
    let set = unsafe {
        let filter = libc::SECCOMP_MODE_FILTER;
        libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program)
    };
    assert_eq!((alone, set), (0, 0), "{}", std::io::Error::last_os_error());
}

#[test]
fn where_io_uring_is_refused_threads_serve_the_image() {
    let home = home(1 << 20);
    let (auto, ring) = (home.spec(""), home.spec(",io=uring"));
    let tested = std::thread::spawn(move || {
        refuse_io_uring();
        let mut disk = Disk::open(&auto);
        assert_eq!(disk.rig.stat("image.io_uring_queues"), 0);
        assert_eq!(disk.rig.stat("image.thread_queues"), 1);
        disk.write(5, &[4; 1024]);
        assert_eq!(disk.read(5, 1024), [4; 1024]);
        drop(disk);
        let why = refused(&ring);
        assert!(why.contains("io=threads"), "{why}");
    });
    tested.join().unwrap();
    // Elsewhere it is there, if this system has it at all.
    let disk = Disk::open(&home.spec(""));
    let probed = io_uring::IoUring::new(1).is_ok();
    assert_eq!(disk.rig.stat("image.io_uring_queues"), u64::from(probed));
}

#[test]
fn a_full_file_system_is_an_error_and_the_device_goes_on() {
    const NAME: &str = "image::a_full_file_system_is_an_error_and_the_device_goes_on";
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP {NAME}: needs root to mount a small file system of its own");
        return;
    }
    // The mounts of a thread of its own, and of the threads that it starts.
    let tested = std::thread::spawn(|| {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};

        if let Err(e) = unshare(CloneFlags::CLONE_NEWNS) {
            println!("SKIP {NAME}: no mount namespace: {e}");
            return;
        }
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, private, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (tmpfs, size) = (Some("tmpfs"), Some("size=1M"));
        mount(tmpfs, dir.path(), tmpfs, MsFlags::empty(), size).unwrap();
        for engine in ENGINES {
            let path = dir.path().join(engine);
            File::create(&path).unwrap().set_len(8 << 20).unwrap();
            let spec = format!("sim:blk,file={},io={engine}", path.display());
            let mut disk = Disk::open(&spec);
            disk.write(0, &[1; 65536]);
            let mut full = 0;
            for i in 1..40 {
                full += u32::from(disk.status(OUT, 128 * i, &[2; 65536]) == IOERR);
            }
            assert!(full > 20, "{full} writes found no room");
            assert_eq!(
                disk.read(0, 65536),
                [1; 65536],
                "nothing acknowledged is lost"
            );
            // There is room again: a tmpfs cannot zero ranges, so these are written as zeroes, too.
            let most = disk.config().max_discard_sectors().min(16000);
            assert_eq!(disk.status(DISCARD, 0, &segment(128, most, 0)), OK);
            disk.write(1000, &[3; 65536]);
            assert_eq!(disk.status(WRITE_ZEROES, 0, &segment(1001, 8, 0)), OK);
            let mut expected = vec![3; 65536];
            expected[512..512 + 4096].fill(0);
            assert_eq!(disk.read(1000, 65536), expected);
            drop(disk);
            fs::remove_file(&path).unwrap();
        }
        nix::mount::umount(dir.path()).unwrap();
    });
    tested.join().unwrap();
}

#[test]
fn a_request_waits_for_a_page_while_what_is_done_goes_back() {
    for engine in ENGINES {
        let home = home(1 << 20);
        let rig = Lab::new().open(&home.spec(&format!(",io={engine},page_requests=on")));
        let all = features(&rig, false, true, true, false);
        let mut disk = Disk::with(rig, all);
        let events = disk.rig.device.events().unwrap();
        disk.write(0, &pattern(1, 512));
        let (at, to) = (disk.rig.alloc(64), rig::REGION);
        disk.rig.bytes().write(at as usize, &header(IN, 0));
        let status = disk.rig.alloc(64);
        let before = disk.send(&Shape {
            readable: header(IN, 0).to_vec(),
            writable: 513,
            piece: usize::MAX,
        });
        disk.q.add(&[(at, 16)], &[(to, 512), (status, 1)]).unwrap();
        disk.q.publish();
        let done = disk.q.wait_used(1);
        assert_eq!(done[0].id, before.id);
        let event = events.wait(soon()).unwrap();
        assert!(matches!(event, Some(Event::Miss { .. })), "{event:?}");
        let (memory, window) = vdpa_mem::Region::anonymous(4096).unwrap().into_shared();
        let iova = vdpa_mem::Iova::new(rig::BASE + rig::REGION);
        let mapping = vdpa_mem::Mapping {
            iova: vdpa_mem::IovaRange::new(iova, 4096).unwrap(),
            memory,
            offset: 0,
            access: vdpa_mem::Access::Both,
            dirty: None,
        };
        disk.rig.dma.map(vec![mapping]).unwrap();
        assert_eq!(disk.q.wait_used(1)[0].len, 513);
        let mut data = [0; 512];
        window.bytes().read(0, &mut data);
        assert_eq!(data.to_vec(), pattern(1, 512));
    }
}

#[test]
fn a_device_that_is_dropped_with_requests_in_flight_lets_go_of_everything() {
    let files = || fs::read_dir("/proc/self/fd").unwrap().count();
    for engine in ENGINES {
        let home = home(8 << 20);
        let once = || {
            let mut disk = Disk::open(&home.spec(&format!(",io={engine}")));
            for i in 0..16 {
                disk.send(&Shape {
                    readable: [&header(OUT, i * 64), pattern(i, 16384).as_slice()].concat(),
                    writable: 1,
                    piece: 4096,
                });
            }
            disk.q.publish();
        };
        once();
        let before = files();
        (0..30).for_each(|_| once());
        // Other tests open files, too.
        until("files to be closed", || files() < before + 30);
    }
}

/// A file system that `mke2fs` made is read through one device, written through another, and checked by `e2fsck`.
#[test]
fn a_file_system_of_strangers_survives_the_way_through_two_disks() {
    const NAME: &str = "image::a_file_system_of_strangers_survives_the_way_through_two_disks";
    let run = |program: &str, args: &[&str]| {
        let path = "/usr/sbin:/sbin:/usr/bin:/bin";
        Command::new(program).env("PATH", path).args(args).output()
    };
    if run("mke2fs", &["-V"]).is_err() || run("debugfs", &["-V"]).is_err() {
        println!("SKIP {NAME}: not installed: e2fsprogs");
        return;
    }
    let (from, to) = (home(8 << 20), home(8 << 20));
    let text = |home: &Home| home.path.to_str().unwrap().to_owned();
    let note = from.dir.path().join("note");
    let words = pattern(11, 300_000);
    fs::write(&note, &words).unwrap();
    let checked = |program: &str, args: &[&str]| {
        let done = run(program, args).unwrap();
        assert!(done.status.success(), "{program} {args:?}: {done:?}");
        done
    };
    checked("mke2fs", &["-q", "-F", "-t", "ext4", &text(&from)]);
    let put = format!("write {} note", note.display());
    checked("debugfs", &["-w", "-R", &put, &text(&from)]);
    let mut source = Disk::packed(&from.spec(",ro=on"), true);
    let mut sink = Disk::open(&to.spec(",io=threads"));
    assert_eq!(source.config().capacity(), 16384);
    for sector in (0..16384).step_by(128) {
        let data = source.read(sector, 65536);
        sink.write(sector, &data);
    }
    assert_eq!(sink.status(FLUSH, 0, &[]), OK);
    drop(sink);
    checked("e2fsck", &["-f", "-n", &text(&to)]);
    let shown = checked("debugfs", &["-R", "cat note", &text(&to)]);
    assert!(shown.stdout == words);
}
