//! A network device of ours in a guest.

use tempfile::TempDir;

use crate::harness::{BackEnd, Guest, are_installed, machine, packed};
use crate::netns::{ip, within};

#[test]
fn a_guest_sees_its_card() {
    let name = "net::a_guest_sees_its_card";
    within(name, move || {
        if !are_installed(name, &[("ethtool", "ethtool")]) {
            return;
        }
        let home = TempDir::with_prefix("interop.").unwrap();
        let socket = home.path().join("net");
        let back_end = BackEnd::start("sim:net,port=tap:tap0", &socket, &[]);
        ip("addr add 10.78.0.1/24 dev tap0");
        ip("link set tap0 up");
        let card = format!("vhost-user-net,socket={}", socket.display());
        let mut guest = Guest::start(packed(machine(&[&card]), "ethtool"));
        guest.does("modprobe virtio_net; ip link set eth0 up; ip addr add 10.78.0.2/24 dev eth0");
        println!(
            "{}",
            guest.does("ethtool eth0; ethtool -l eth0; ethtool -k eth0")
        );
        guest.does("ping -c 3 10.78.0.1");
        guest.ends();
        back_end.stop();
    });
}
