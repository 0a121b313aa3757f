//! Functions that would be missed.

use nix::errno::Errno;

use super::*;

const AT: &str = "0000:01:00.0";
const HOME: &str = "/sys/bus/pci/devices/0000:01:00.0";

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.bus(&["virtio-pci", "vfio-pci"]);
    fixture.function(AT, "1af4:1041 1af4:1100 020000");
    fixture.driver(AT, "virtio-pci");
    fixture.group(AT, 12);
    fixture
}

/// What it is used for, in words.
fn usage(fixture: &Fixture) -> Vec<String> {
    let host = fixture.host();
    let usage = host.usage(&host.function(address(AT)).unwrap());
    // Whatever it is, it keeps the function from being taken.
    let kernel = host.kernel().unwrap();
    let bindings = Bindings::new(&host, &*kernel, &host.state());
    for (regard, refuses) in [(Regard::Spare, !usage.is_empty()), (Regard::Force, false)] {
        let plan = bindings.plan(address(AT), Wish::Bind, regard);
        assert_eq!(plan.is_err(), refuses, "{plan:?}");
    }
    usage.iter().map(Usage::to_string).collect()
}

#[test]
fn a_card_that_carries_nothing_is_free() {
    let fixture = fixture();
    fixture.interface(AT, "eth1", 0x1002);
    fixture.disk(AT, "vdb", "254:16");
    assert!(usage(&fixture).is_empty());
}

#[test]
fn an_interface_that_is_up_is_in_use() {
    let fixture = fixture();
    fixture.interface(AT, "eth1", 0x1003);
    fixture.function("0000:02:00.0", "1af4:1041 1af4:1100 020000");
    fixture.interface("0000:02:00.0", "eth0", 0x1003);
    assert_eq!(usage(&fixture), ["interface eth1 is up"]);
}

#[test]
fn an_interface_in_another_namespace_may_be_in_use() {
    for home in ["net", "virtio0/net"] {
        let fixture = fixture();
        std::fs::create_dir_all(fixture.path(&format!("{HOME}/{home}"))).unwrap();
        // Another device's, and a link to it.
        let other = "/sys/devices/virtual/other/net";
        std::fs::create_dir_all(fixture.path(other)).unwrap();
        fixture.link(
            &format!("{HOME}/consumer"),
            "../../../../devices/virtual/other",
        );
        let usage = usage(&fixture);
        assert!(
            usage.len() == 1 && usage[0].contains("another network namespace"),
            "{usage:?}"
        );
    }
}

#[test]
fn the_default_route_is_in_use_by_either_protocol() {
    let header =
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
    let six = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
               fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth1\n";
    for (path, text) in [
        (
            "/proc/net/route",
            format!("{header}eth1\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"),
        ),
        ("/proc/net/ipv6_route", six.to_owned()),
    ] {
        let fixture = fixture();
        fixture.interface(AT, "eth1", 0x1003);
        fixture.file(path, text);
        assert_eq!(
            usage(&fixture),
            ["interface eth1 is up and has the default route"]
        );
    }
    let fixture = fixture();
    fixture.interface(AT, "eth1", 0x1003);
    let other = format!("{header}eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n");
    fixture.file("/proc/net/route", other);
    assert_eq!(usage(&fixture), ["interface eth1 is up"]);
}

#[test]
fn a_mounted_disk_is_in_use_by_number_or_by_file() {
    for line in [
        "26 1 254:16 / / rw,relatime shared:1 - ext4 /dev/root rw",
        // btrfs has numbers of its own.
        "26 1 0:22 / / rw,relatime shared:1 - btrfs /dev/vdb rw",
    ] {
        let fixture = fixture();
        fixture.disk(AT, "vdb", "254:16");
        fixture.file("/proc/self/mountinfo", format!("{line}\n"));
        assert_eq!(usage(&fixture), ["vdb is mounted at /"]);
    }
}

#[test]
fn a_disk_below_a_mounted_one_is_in_use() {
    let fixture = fixture();
    fixture.disk(AT, "vdb", "254:16");
    fixture.disk(AT, "vdb1", "254:17");
    // Encrypted, in a volume group.
    for (disk, number, below) in [("dm-0", "253:0", "vdb1"), ("dm-1", "253:1", "dm-0")] {
        fixture.file(
            &format!("/sys/devices/virtual/block/{disk}/dev"),
            format!("{number}\n"),
        );
        fixture.link(
            &format!("/sys/class/block/{disk}"),
            &format!("../../devices/virtual/block/{disk}"),
        );
        fixture.link(&format!("/sys/class/block/{below}/holders/{disk}"), "..");
    }
    // A circle, which is none of the kernel's.
    fixture.link("/sys/class/block/dm-1/holders/dm-0", "..");
    assert!(usage(&fixture).is_empty());
    fixture.file(
        "/proc/self/mountinfo",
        "26 1 253:1 / /home rw - ext4 /dev/mapper/home rw\n",
    );
    assert_eq!(usage(&fixture), ["dm-1 is mounted at /home"]);
    fixture.file(
        "/proc/swaps",
        "Filename Type Size Used Priority\n/dev/vdb1 partition 1 0 -2\n",
    );
    assert_eq!(
        usage(&fixture),
        ["dm-1 is mounted at /home", "vdb1 is swap space"]
    );
}

/// A disk that is made of another one, by the name that its maker gave it.
fn mapped(fixture: &Fixture, disk: &str, number: &str, name: &str, below: &str) {
    let home = format!("/sys/devices/virtual/block/{disk}");
    fixture.file(&format!("{home}/dev"), format!("{number}\n"));
    fixture.file(&format!("{home}/dm/name"), format!("{name}\n"));
    fixture.link(
        &format!("/sys/class/block/{disk}"),
        &format!("../../devices/virtual/block/{disk}"),
    );
    fixture.link(&format!("/sys/class/block/{below}/holders/{disk}"), "..");
}

#[test]
fn a_root_of_btrfs_on_an_encrypted_disk_is_in_use() {
    let fixture = fixture();
    fixture.disk(AT, "vdb", "254:16");
    mapped(&fixture, "dm-0", "253:0", "luks-root", "vdb");
    assert!(usage(&fixture).is_empty());
    fixture.file(
        "/proc/self/mountinfo",
        "26 1 0:35 /@ / rw - btrfs /dev/mapper/luks-root rw,subvol=/@\n",
    );
    assert_eq!(usage(&fixture), ["dm-0 is mounted at /"]);
    fixture.file("/proc/self/mountinfo", "");
    fixture.file("/proc/swaps", "/dev/mapper/luks-root partition 1 0 -2\n");
    assert_eq!(usage(&fixture), ["dm-0 is swap space"]);
}

#[test]
fn the_second_disk_of_a_btrfs_set_is_in_use() {
    let fixture = fixture();
    fixture.disk(AT, "vdb", "254:16");
    fixture.function("0000:02:00.0", "1af4:1042 1af4:1100 010000");
    fixture.disk("0000:02:00.0", "vda", "254:0");
    mapped(&fixture, "dm-0", "253:0", "first", "vda");
    let set = "/sys/fs/btrfs/e3a0/devices";
    fixture.link(&format!("{set}/vdb"), "..");
    assert_eq!(
        usage(&fixture),
        ["vdb is mounted at a place not seen from here (btrfs e3a0)"]
    );
    fixture.link(&format!("{set}/dm-0"), "..");
    fixture.file(
        "/proc/self/mountinfo",
        "26 1 0:35 / /srv rw - btrfs /dev/mapper/first rw\n",
    );
    assert_eq!(usage(&fixture), ["vdb is mounted at /srv"]);
}

#[test]
fn a_disk_whose_name_has_a_slash_is_in_use_by_its_file() {
    let fixture = fixture();
    fixture.disk(AT, "cciss!c0d0", "0:0");
    fixture.file(
        "/proc/self/mountinfo",
        "26 1 0:35 / /srv rw - btrfs /dev/cciss/c0d0 rw\n",
    );
    assert_eq!(usage(&fixture), ["cciss!c0d0 is mounted at /srv"]);
}

#[test]
fn a_disk_that_the_kernel_has_given_away_is_in_use() {
    let claim = |errno: Errno| {
        let usage = crate::sysfs::usage::claim("vdb", errno.into());
        usage.map(|usage| usage.to_string())
    };
    assert_eq!(
        claim(Errno::EBUSY).unwrap(),
        "the kernel says that vdb is in use"
    );
    assert!(claim(Errno::ENOENT).unwrap().contains("/dev/vdb"));
    assert_eq!(claim(Errno::EACCES), None);
    assert_eq!(claim(Errno::ENOMEDIUM), None);
}

#[test]
fn the_disk_that_this_machine_runs_from_is_in_use() {
    let tree = crate::sysfs::tree::Tree::new(Path::new("/"));
    let mounts = tree.text("/proc/self/mountinfo", 1 << 20);
    let mounts = mounts.known().cloned().unwrap_or_default();
    // A disk that is mounted, whose file is here and may be opened.
    let disks = mounts.lines().filter_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let number = front.split(' ').nth(2)?;
        let name = back.split(' ').nth(1)?.strip_prefix("/dev/")?;
        let seen = tree.text(format!("/sys/class/block/{name}/dev"), 64);
        let opens = std::fs::File::open(format!("/dev/{name}")).is_ok();
        (seen.known()? == number && opens).then(|| name.to_owned())
    });
    let mut asked = 0;
    for disk in disks {
        let claimed = crate::sysfs::usage::claimed(&tree, &disk);
        assert_eq!(claimed, Some(Usage::Claimed { disk }));
        asked += 1;
    }
    if asked == 0 {
        eprintln!("skipped: no mounted disk's file can be opened here");
    }
}

#[test]
fn an_nvme_disk_of_several_paths_is_in_use_by_each() {
    let fixture = fixture();
    fixture.disk(AT, "nvme0c1n1", "0:0");
    for (disk, number) in [
        ("nvme0n1", "259:0"),
        ("nvme0n1p2", "259:2"),
        ("nvme0n11", "259:9"),
    ] {
        fixture.file(
            &format!("/sys/devices/virtual/nvme-subsystem/{disk}/dev"),
            format!("{number}\n"),
        );
        fixture.link(
            &format!("/sys/class/block/{disk}"),
            &format!("../../devices/virtual/nvme-subsystem/{disk}"),
        );
    }
    fixture.file(
        "/proc/self/mountinfo",
        "26 1 259:9 / /other rw - ext4 /dev/nvme0n11 rw\n",
    );
    assert!(usage(&fixture).is_empty());
    fixture.file(
        "/proc/self/mountinfo",
        "26 1 259:2 / / rw - ext4 /dev/root rw\n",
    );
    assert_eq!(usage(&fixture), ["nvme0n1p2 is mounted at /"]);
}

#[test]
fn the_display_is_in_use() {
    let fixture = fixture();
    fixture.attribute(AT, "boot_vga", "0\n");
    assert!(usage(&fixture).is_empty());
    fixture.attribute(AT, "boot_vga", "1\n");
    assert_eq!(usage(&fixture), ["it is the machine's display"]);
}

#[test]
fn what_cannot_be_seen_may_be_in_use() {
    let fixture = fixture();
    fixture.file("/sys/class/net", "no directory");
    assert!(usage(&fixture)[0].contains("cannot be seen"));
    let fixture = self::fixture();
    fixture.interface(AT, "eth1", 0);
    fixture.file(&format!("{HOME}/net/eth1/flags"), b"\xff");
    assert!(usage(&fixture)[0].contains("eth1"));
    let fixture = self::fixture();
    fixture.disk(AT, "vdb", "254:16");
    fixture.file("/proc/self/mountinfo", b"\xff");
    assert!(usage(&fixture)[0].contains("mounts"));
}
