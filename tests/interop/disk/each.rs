//! Every configuration of a disk, several in one guest: what is written is there, on the host as well, and a filesystem.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{BYTES, can_run, holds};
use crate::choices;
use crate::dpdk::served::{Makes, Served};
use crate::harness::{Guest, machine, packed, talker};

/// What [`Disk::new`] chooses.
const CHOICES: u32 = 4;
/// Behind which the first disk is.
const FIRST_SLOT: usize = 10;

/// Feature bits, as `linux/virtio_blk.h`, `virtio_config.h` and `virtio_ring.h` have them.
const MQ: usize = 12;
const DISCARD: usize = 13;
const WRITE_ZEROES: usize = 14;
const EVENT_IDX: usize = 29;
const RING_PACKED: usize = 34;

/// How a disk is set up.
#[derive(Clone, Copy, Debug)]
struct Disk {
    packed: bool,
    queues: u16,
    events: bool,
    /// Discard and write-zeroes.
    discard: bool,
}

impl Disk {
    fn new(configuration: u32) -> Self {
        let chosen = |choice: u32| configuration & 1 << choice != 0;
        Self {
            packed: chosen(0),
            queues: if chosen(1) { 4 } else { 1 },
            events: chosen(2),
            discard: chosen(3),
        }
    }

    /// Of the guest's machine.
    fn part(self, slot: usize, socket: &Path) -> String {
        let switch = |on| if on { "on" } else { "off" };
        format!(
            "vhost-user-blk,name={slot},slot={slot},socket={},queues={},vectors=6,packed={},events={},discard={},zeroes={}",
            socket.display(),
            self.queues,
            switch(self.packed),
            switch(self.events),
            switch(self.discard),
            switch(self.discard),
        )
    }

    /// The guest's driver uses what was asked for, and nothing else of that.
    #[track_caller]
    fn is_as_asked(self, guest: &mut Guest, slot: usize) {
        let bits = guest.does(&format!(
            "cat /sys/bus/pci/devices/$(behind {slot})/virtio*/features"
        ));
        let wanted = [
            (MQ, self.queues > 1),
            (DISCARD, self.discard),
            (WRITE_ZEROES, self.discard),
            (EVENT_IDX, self.events),
            (RING_PACKED, self.packed),
        ];
        for (bit, on) in wanted {
            let is = bits.as_bytes().get(bit) == Some(&b'1');
            assert_eq!(is, on, "feature {bit} of {bits}: {self:?}");
        }
    }

    /// Writes, reads, zeroes and discards; then a filesystem.
    #[track_caller]
    fn is_used(self, guest: &mut Guest, slot: usize, image: &Path) {
        let disk = guest.does(&format!(
            "ls /sys/bus/pci/devices/$(behind {slot})/virtio*/block"
        ));
        let disk = format!("/dev/{disk}");
        guest.does(&format!("talker blocks fill {disk} 1 0+1024"));
        guest.does(&format!("talker blocks hold {disk} 1 0+1024"));
        guest.does(&format!("talker blocks zero {disk} 100+64 keep"));
        holds(image, 1, 0, 100);
        holds(image, 0, 100, 64);
        holds(image, 1, 164, 1024 - 164);
        if self.discard {
            guest.does(&format!("talker blocks zero {disk} 200+64 unmap"));
            guest.does(&format!("blkdiscard -o 2097152 -l 1048576 {disk}; sync"));
            holds(image, 0, 200, 64);
            holds(image, 1, 768, 256);
        }
        guest.does(&format!(
            "/bin/mke2fs -q -t ext4 -F {disk} 2>&1; mount -t ext4 {disk} /mnt"
        ));
        guest.does("dd if=/dev/urandom of=/mnt/noise bs=64k count=16 2>/dev/null; sha256sum /mnt/noise >/run/sum");
        guest.does(&format!("umount /mnt; /bin/e2fsck -fn {disk} 2>&1"));
        guest.does(&format!(
            "mount -t ext4 {disk} /mnt; sha256sum -c /run/sum; umount /mnt"
        ));
    }
}

/// All disks are there from the beginning; one after the other is used.
fn are_used(name: &str, configurations: &[u32]) {
    if !can_run(name) {
        return;
    }
    let home = TempDir::with_prefix("interop.").unwrap();
    let disks: Vec<(Disk, PathBuf)> = configurations
        .iter()
        .map(|number| {
            (
                Disk::new(*number),
                home.path().join(format!("image{number}")),
            )
        })
        .collect();
    let socket = |at: usize| home.path().join(format!("disk{at}"));
    let mut parts = Vec::new();
    let mut devices = Vec::new();
    for (at, (disk, image)) in disks.iter().enumerate() {
        std::fs::File::create(image)
            .unwrap()
            .set_len(BYTES)
            .unwrap();
        devices.push((
            format!("sim:blk,file={},queues=4", image.display()),
            socket(at),
        ));
        parts.push(disk.part(FIRST_SLOT + at, &socket(at)));
    }
    let served = Served::start(&devices, Makes::BackEnd);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let machine = machine(&parts).words(&["-smp", "2"]);
    let machine = ["mke2fs", "e2fsck"].into_iter().fold(machine, packed);
    let mut guest = Guest::start(talker(machine));
    guest.does("modprobe virtio_blk; modprobe crc32c_generic; modprobe ext4");
    for (at, (disk, image)) in disks.iter().enumerate() {
        println!("{disk:?}");
        disk.is_as_asked(&mut guest, FIRST_SLOT + at);
        disk.is_used(&mut guest, FIRST_SLOT + at, image);
    }
    guest.ends();
    served.stop();
}

#[test]
fn a_disk_is_used_whichever_two_things_are_chosen() {
    let name = "disk::each::a_disk_is_used_whichever_two_things_are_chosen";
    are_used(name, &choices::few(CHOICES));
}

/// All of them, for `tests/run --full`.
mod full {
    use super::{CHOICES, are_used, choices};

    /// Disks of one guest.
    const TOGETHER: usize = 8;

    macro_rules! disks {
        ($($name:ident: $part:literal;)*) => {$(
            #[test]
            fn $name() {
                let all: Vec<u32> = choices::all(CHOICES).collect();
                let part = all.chunks(TOGETHER).nth($part).unwrap();
                are_used(concat!("disk::each::full::", stringify!($name)), part);
            }
        )*};
    }

    disks! {
        disks_0_to_7: 0;
        disks_8_to_15: 1;
    }
}
