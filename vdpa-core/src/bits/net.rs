//! Bits of the network device (virtio 1.4 §5.1.3).

table! {
    "VIRTIO_NET_F_" {
        CSUM = 0, "the device completes partial checksums";
        GUEST_CSUM = 1, "the driver takes packets with partial checksums";
        CTRL_GUEST_OFFLOADS = 2, "receive offloads can be changed through the control queue";
        MTU = 3, "the device reports its maximum MTU";
        MAC = 5, "the device has a MAC address";
        GUEST_TSO4 = 7, "the driver receives large TCP/IPv4 packets";
        GUEST_TSO6 = 8, "the driver receives large TCP/IPv6 packets";
        GUEST_ECN = 9, "the driver receives large TCP packets with ECN";
        GUEST_UFO = 10, "the driver receives UDP packets to be fragmented";
        HOST_TSO4 = 11, "the device takes large TCP/IPv4 packets";
        HOST_TSO6 = 12, "the device takes large TCP/IPv6 packets";
        HOST_ECN = 13, "the device takes large TCP packets with ECN";
        HOST_UFO = 14, "the device takes UDP packets to be fragmented";
        MRG_RXBUF = 15, "a received packet may span several buffers";
        STATUS = 16, "the config space has the link status";
        CTRL_VQ = 17, "there is a control queue";
        CTRL_RX = 18, "receive modes are set through the control queue";
        CTRL_VLAN = 19, "VLAN filtering through the control queue";
        CTRL_RX_EXTRA = 20, "further receive modes through the control queue";
        GUEST_ANNOUNCE = 21, "the driver can announce itself on the network";
        MQ = 22, "several queue pairs with automatic receive steering";
        CTRL_MAC_ADDR = 23, "the MAC address is set through the control queue";
        DEVICE_STATS = 50, "statistics through the control queue";
        HASH_TUNNEL = 51, "the hash covers the inner header of a tunnelled packet";
        VQ_NOTF_COAL = 52, "calls are coalesced queue by queue";
        NOTF_COAL = 53, "calls are coalesced";
        GUEST_USO4 = 54, "the driver receives large UDP/IPv4 packets";
        GUEST_USO6 = 55, "the driver receives large UDP/IPv6 packets";
        HOST_USO = 56, "the device segments large UDP packets";
        HASH_REPORT = 57, "the device reports each packet's hash";
        GUEST_HDRLEN = 59, "the driver gives exact header lengths";
        RSS = 60, "receive-side scaling with a Toeplitz hash";
        RSC_EXT = 61, "the device reports coalesced segments and duplicated ACKs";
        STANDBY = 62, "stands by for a primary device with the same MAC address";
        SPEED_DUPLEX = 63, "the config space has speed and duplex";
        RSS_CONTEXT = 64, "several contexts of receive-side scaling";
        GUEST_UDP_TUNNEL_GSO = 65, "the driver receives large packets in a UDP tunnel";
        GUEST_UDP_TUNNEL_GSO_CSUM = 66, "the same with a partial outer checksum";
        HOST_UDP_TUNNEL_GSO = 67, "the device takes large packets in a UDP tunnel";
        HOST_UDP_TUNNEL_GSO_CSUM = 68, "the same with a partial outer checksum";
        OUT_NET_HEADER = 69, "the driver gives the offset of the outer network header";
        IPSEC = 70, "IPsec is processed inline";
    } legacy {
        GSO = 6, "the device takes large packets of any kind";
        GUEST_RSC4 = 41, "the device coalesces TCP/IPv4 packets";
        GUEST_RSC6 = 42, "the device coalesces TCP/IPv6 packets";
    }
}
