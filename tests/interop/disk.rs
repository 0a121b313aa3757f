//! A disk of ours in a guest: what it reads and writes, a filesystem, another size, another driver, another VMM.

mod each;
mod migration;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use crate::content::{self, SECTOR};
use crate::harness::{BackEnd, Guest, are_installed, machine, packed, talker};

/// Bytes of a block, as `talker blocks` has them.
const BLOCK: usize = 4096;
/// Bytes of the disk, and what it grows to.
const BYTES: u64 = 64 << 20;
const GROWN: u64 = 96 << 20;
/// As many as the guest has processors, since Debian's driver uses no more.
const QUEUES: &str = "4";

/// An image, what serves it, and where.
pub(crate) struct Scene {
    home: TempDir,
    pub(crate) image: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) spec: String,
}

impl Scene {
    /// * `keys`: more for the device's string
    pub(crate) fn new(keys: &str) -> Self {
        let home = TempDir::with_prefix("interop.").unwrap();
        let (image, socket) = (home.path().join("image"), home.path().join("disk"));
        std::fs::File::create(&image)
            .unwrap()
            .set_len(BYTES)
            .unwrap();
        let spec = format!("sim:blk,file={},queues={QUEUES}{keys}", image.display());
        Self {
            home,
            image,
            socket,
            spec,
        }
    }

    /// Another file beside the image.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A guest with the disk.
    #[track_caller]
    pub(crate) fn guest(&self, rings: &str) -> Guest {
        let socket = self.socket.display();
        let disk = format!("vhost-user-blk,socket={socket},queues={QUEUES},vectors=6,{rings}");
        // It comes before what is behind it.
        let iommu = rings.contains("iommu=on").then_some("intel-iommu");
        let parts: Vec<&str> = iommu.into_iter().chain([disk.as_str()]).collect();
        let machine = machine(&parts).words(&["-smp", QUEUES, "-action", "reboot=reset"]);
        let machine = ["mke2fs", "e2fsck"].into_iter().fold(machine, packed);
        let mut guest = Guest::start(talker(machine));
        guest.does("modprobe virtio_blk");
        guest
    }

    /// The file on the host has this version in these blocks, byte for byte.
    #[track_caller]
    pub(crate) fn holds(&self, version: u64, first: u64, count: u64) {
        holds(&self.image, version, first, count);
    }
}

/// A file has this version in these blocks, byte for byte.
#[track_caller]
fn holds(image: &Path, version: u64, first: u64, count: u64) {
    let file = std::fs::File::open(image).unwrap();
    let mut bytes = vec![0; BLOCK * count as usize];
    file.read_exact_at(&mut bytes, first * BLOCK as u64)
        .unwrap();
    let sector = first * (BLOCK / SECTOR) as u64;
    content::judge(&bytes, sector, version).unwrap();
}

/// Everything but reboots, on a disk that is as large as it was made.
fn is_used(scene: &Scene, guest: &mut Guest, packed: bool) {
    let features = guest.does("cat /sys/bus/virtio/devices/virtio0/features");
    // FLUSH, MQ, DISCARD, WRITE_ZEROES, EVENT_IDX; and RING_PACKED as asked.
    let has = |bit: usize| features.as_bytes()[bit] == b'1';
    assert!(
        [9, 12, 13, 14, 29, 32].into_iter().all(has),
        "no {features}"
    );
    assert_eq!(has(34), packed, "{features}");
    assert_eq!(guest.does("ls /sys/block/vda/mq | wc -l"), QUEUES);
    assert_eq!(
        guest.does("cat /sys/block/vda/queue/write_cache"),
        "write back"
    );

    guest.does("talker blocks fill /dev/vda 1 0+4096");
    guest.does("talker blocks hold /dev/vda 1 0+4096");
    guest.does("talker blocks zero /dev/vda 100+64 keep");
    guest.does("talker blocks zero /dev/vda 200+64 unmap");
    guest.does("blkdiscard -o 2097152 -l 1048576 /dev/vda");
    guest.does("talker blocks fill /dev/vda 2 600+8");
    guest.does("sync");
    for (version, first, count) in [
        (1, 0, 100),
        (0, 100, 64),
        (1, 164, 36),
        (0, 200, 64),
        (1, 264, 248),
        (2, 600, 8),
        (1, 768, 4096 - 768),
    ] {
        scene.holds(version, first, count);
    }

    // By its path: the shell has one of its own, which makes ext2. And its modprobe does not know of soft dependencies.
    guest.does("modprobe crc32c_generic; modprobe ext4");
    guest.does("/bin/mke2fs -q -t ext4 -F /dev/vda 2>&1; mount -t ext4 /dev/vda /mnt");
    guest.does("dd if=/dev/urandom of=/mnt/noise bs=64k count=64 2>/dev/null; cp -r /bin /mnt/bin");
    guest.does("cd /mnt; find . -type f | xargs sha256sum >/run/sums; cd /; umount /mnt");
    guest.does("/bin/e2fsck -fn /dev/vda 2>&1");
    guest.does("mount -t ext4 /dev/vda /mnt; cd /mnt; sha256sum -c /run/sums >/run/said; cd /");
    guest.does("umount /mnt");
    // The system's own program agrees about the file.
    let checked = Command::new("/usr/sbin/e2fsck")
        .arg("-fn")
        .arg(&scene.image)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

/// The driver lets go of the disk and takes it back; what was written is there.
fn is_bound_again(guest: &mut Guest) {
    guest.does("talker blocks fill /dev/vda 3 0+512");
    let drivers = "/sys/bus/virtio/drivers/virtio_blk";
    guest.does(&format!(
        "echo virtio0 >{drivers}/unbind; ! [ -e /sys/block/vda ]"
    ));
    guest.does(&format!("echo virtio0 >{drivers}/bind"));
    guest.does("talker blocks hold /dev/vda 3 0+512");
}

/// The image grows under the guest, which uses what is new.
fn grows(scene: &Scene, back_end: &mut BackEnd, guest: &mut Guest) {
    let file = std::fs::File::options().write(true).open(&scene.image);
    file.unwrap().set_len(GROWN).unwrap();
    kill(back_end.pid(), Signal::SIGHUP).unwrap();
    assert_eq!(back_end.event("resized")["bytes"], GROWN);
    let sectors = GROWN / SECTOR as u64;
    guest.does(&format!(
        "until [ $(cat /sys/block/vda/size) = {sectors} ]; do sleep 0.1; done"
    ));
    let first = BYTES / BLOCK as u64;
    guest.does(&format!("talker blocks fill /dev/vda 4 {first}+256"));
    scene.holds(4, first, 256);
}

/// What the tests here need.
pub(crate) fn can_run(name: &str) -> bool {
    let programs = [("mke2fs", "e2fsprogs"), ("e2fsck", "e2fsprogs")];
    are_installed(name, &programs)
}

#[test]
fn a_guest_uses_a_disk_that_grows_and_another_vmm_finds_what_it_wrote() {
    if !can_run("disk::a_guest_uses_a_disk_that_grows_and_another_vmm_finds_what_it_wrote") {
        return;
    }
    let scene = Scene::new(",workers=2");
    let mut back_end = BackEnd::start(&scene.spec, &scene.socket, &[]);
    let mut guest = scene.guest("packed=off");
    is_used(&scene, &mut guest, false);
    is_bound_again(&mut guest);
    guest.is_told("reboot -f");
    guest.is_up();
    guest.does("modprobe virtio_blk; talker blocks hold /dev/vda 3 0+512");
    grows(&scene, &mut back_end, &mut guest);
    guest.kill();

    let mut guest = scene.guest("packed=on");
    guest.does("talker blocks hold /dev/vda 3 0+512");
    is_used(&scene, &mut guest, true);
    is_bound_again(&mut guest);
    guest.ends();
    back_end.stop();
    scene.holds(3, 0, 512);
}
