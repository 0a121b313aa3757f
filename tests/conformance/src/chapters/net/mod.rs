//! Network device.
//!
//! Most statements need a card that gives back what is sent: see `card::require_loop`.

mod card;
mod coalescing;
mod commands;
mod filter;
mod hashing;
mod inlet;
mod layout;
mod offload;
mod packet;
mod receive;
mod statistics;
mod steering;
mod transmit;

use super::any;
use crate::Variant;
use crate::statement::Check::{Once, Rings};
use crate::statement::{Entry, device, driver, format};
pub(crate) use card::{longest_frame, loops, rinse};

/// What does not depend on the features of a ring is tried once with each format.
fn formats(variant: &Variant) -> bool {
    !variant.in_order && !variant.event_idx && !variant.indirect
}

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        146,
        "5.1.4.1",
        "max_virtqueue_pairs is 1..0x8000",
        Once(layout::pairs_are_some_and_not_too_many),
    ),
    device(
        147,
        "5.1.4.1",
        "mtu is 68..65535 and constant",
        Once(layout::mtu_is_in_range_and_stays),
    ),
    device(
        148,
        "5.1.4.1",
        "No received packet over mtu (non-GSO)",
        Rings(any, receive::nothing_over_the_mtu),
    ),
    device(
        149,
        "5.1.4.1",
        "A packet up to mtu is sent unfragmented",
        Rings(any, receive::up_to_the_mtu_whole),
    ),
    device(
        150,
        "5.1.4.1",
        "RSS key >= 40 bytes, table >= 128 entries",
        Once(layout::key_and_table_have_room),
    ),
    device(
        151,
        "5.1.9.4.1",
        "Without MRG_RXBUF num_buffers is 1",
        Rings(any, receive::one_buffer_without_merging),
    ),
    device(
        152,
        "5.1.9.4.1",
        "With it num_buffers is the buffers used",
        Rings(any, receive::merged_buffers_are_counted),
    ),
    device(
        153,
        "5.1.9.4.1",
        "All but the last buffer are filled completely",
        Rings(any, receive::all_but_the_last_are_full),
    ),
    device(
        154,
        "5.1.9.4.1",
        "The buffers of one packet appear together",
        Rings(any, receive::buffers_of_a_packet_together),
    ),
    device(
        155,
        "5.1.9.3.2",
        "A single descriptor chain without MRG_RXBUF",
        Rings(any, receive::a_single_chain_without_merging),
    ),
    device(
        156,
        "5.1.9.4.1",
        "Without GUEST_CSUM flags are 0",
        Rings(formats, offload::no_flags_without_guest_csum),
    ),
    device(
        157,
        "5.1.9.4.1",
        "A gso_type only if its GUEST_* bit is negotiated (one test each)",
        Rings(formats, offload::a_type_only_with_its_bit),
    ),
    device(
        158,
        "5.1.9.4.1",
        "None negotiated: GSO_NONE",
        Rings(formats, offload::no_type_with_none),
    ),
    device(
        159,
        "5.1.9.4.1",
        "GSO implies NEEDS_CSUM and gso_size",
        Rings(formats, offload::a_type_brings_csum_and_size),
    ),
    device(
        160,
        "5.1.9.4.1",
        "NEEDS_CSUM: csum_start/offset completes to a valid checksum",
        Rings(formats, offload::what_is_left_completes_to_a_right_one),
    ),
    device(
        161,
        "5.1.9.4.1",
        "DATA_VALID only after validation",
        Rings(formats, offload::valid_only_if_it_is),
    ),
    device(
        162,
        "5.1.9.4.1",
        "Without RSC_EXT RSC_INFO is clear",
        Rings(formats, offload::no_coalescing_told_of),
    ),
    device(
        163,
        "5.1.9.2.2",
        "Unknown TX flag bits are ignored",
        Rings(formats, transmit::unknown_flags_are_ignored),
    ),
    device(
        164,
        "5.1.9.2.2",
        "csum fields unused when NEEDS_CSUM is clear",
        Rings(formats, transmit::checksum_fields_need_their_flag),
    ),
    device(
        165,
        "5.1.9.2.2",
        "hdr_len is not trusted",
        Rings(formats, transmit::header_length_is_not_trusted),
    ),
    device(
        166,
        "5.1.9.2.2",
        "Both tunnel bits: rejected",
        Rings(formats, transmit::both_tunnels_are_rejected),
    ),
    device(
        167,
        "5.1.9.2.2",
        "Tunnel without NEEDS_CSUM, or with GSO_NONE: rejected",
        Rings(formats, transmit::tunnels_need_more),
    ),
    driver(
        168,
        "5.1.9.2.1",
        "TX num_buffers 0; no DATA_VALID; GSO only if HOST_*",
        Rings(formats, transmit::wrong_headers_are_survived),
    ),
    device(
        169,
        "5.1.9.5.1.1",
        "CTRL_RX: PROMISC and ALLMULTI",
        Rings(formats, filter::promiscuous_and_all_multicast),
    ),
    device(
        170,
        "5.1.9.5.1.1",
        "CTRL_RX_EXTRA: the four extra commands",
        Rings(formats, filter::four_more_modes),
    ),
    device(
        171,
        "5.1.9.5.2.1",
        "The MAC table is empty after reset",
        Rings(formats, filter::no_addresses_after_reset),
    ),
    device(
        172,
        "5.1.9.5.2.1",
        "The table is updated before the command is used",
        Rings(formats, filter::the_table_counts_at_once),
    ),
    device(
        173,
        "5.1.9.5.2.1",
        "Config mac is updated before ADDR_SET is used",
        Rings(formats, filter::the_address_is_shown_at_once),
    ),
    device(
        174,
        "5.1.9.5.3.1",
        "Without CTRL_VLAN all tags are accepted",
        Rings(formats, filter::all_tags_without_a_filter),
    ),
    device(
        175,
        "5.1.9.5.3.1",
        "With it the listed tags are accepted",
        Rings(formats, filter::listed_tags_with_it),
    ),
    device(
        176,
        "5.1.9.5.4.2",
        "The ANNOUNCE bit is cleared before ACK is used",
        Rings(formats, filter::announce_is_cleared_at_once),
    ),
    device(
        177,
        "5.1.9.5.6.2",
        "After reset RX uses queue pair 1 only",
        Rings(formats, steering::one_pair_after_reset),
    ),
    device(
        178,
        "5.1.9.5.6.2",
        "No RX above the pairs set, once the command is used",
        Rings(formats, steering::no_pair_above_those_set),
    ),
    device(
        179,
        "5.1.9.5.6.2",
        "A queue being reset: the packet is dropped, not lost in a stall",
        Rings(formats, steering::queues_in_reset_stall_nothing),
    ),
    device(
        180,
        "5.1.9.4.3",
        "RSS offered: RSS_CONFIG works; else HASH_CONFIG",
        Rings(formats, hashing::hashing_can_be_set),
    ),
    device(
        181,
        "5.1.9.5.10.6",
        "Coalescing: unknown or disabled queue -> ERR; parameters 0 at reset",
        Rings(formats, coalescing::coalescing_by_queue),
    ),
    device(
        182,
        "5.1.9.5.11.12",
        "Stats: the whole command fails on one bad entry; sizes exact",
        Rings(formats, statistics::by_type),
    ),
    driver(
        183,
        "5.1.9.5.6.1",
        "Never 0 pairs nor more than the maximum",
        Rings(formats, steering::wrong_numbers_of_pairs),
    ),
    driver(
        184,
        "5.1.9.5.7.2",
        "Indirection length a power of two, below the maximum, enabled queues only",
        Rings(formats, hashing::wrong_tables),
    ),
    format(
        185,
        "5.1.9.5",
        "A short or unknown control command comes back with ERR",
        Rings(formats, commands::no_command_comes_back_with_err),
    ),
];
