use bytes::BufMut;
use rand::RngExt;
use tracing::trace_span;

use super::{Connection, SentPacket};
use crate::{
    Instant,
    frame::StreamMetaVec,
    packet::{FIXED_BIT, Header, PacketNumber, SpaceId},
};

impl Connection {
    /// Writes up to `most` 1-RTT packets of `size` bytes, each filled by one frame of the stream
    /// whose turn it is, and returns how many
    ///
    /// They are nearly all packets of a large answer, and the same holds for each of them: nothing
    /// else is to be sent, and congestion control and pacing let it go. So that is looked at once.
    /// Wherever it does not hold, and for the last packet, 0 leaves it to `build_transmit`.
    pub(super) fn write_run(
        &mut self,
        now: Instant,
        size: usize,
        most: usize,
        buf: &mut Vec<u8>,
    ) -> usize {
        let most = self.run_max(size, most);
        if most == 0 {
            return 0;
        }
        let Some(mut stream) = self.streams.run() else {
            return 0;
        };
        let space = &mut self.spaces[SpaceId::Data];
        let Some(crypto) = space.crypto.take() else {
            return 0;
        };
        let (header_key, packet_key) = (&*crypto.header.local, &*crypto.packet.local);
        let tag = packet_key.tag_len();
        let dst_cid = self.rem_cids.active();
        let largest_acked = space.largest_acked_packet.unwrap_or(0);

        let first = buf.len();
        buf.reserve(most * size);
        let mut packets = 0;
        // With more than a packet's worth left, a frame ends neither the stream nor what it has.
        while packets < most && stream.remaining() > size as u64 {
            let start = buf.len();
            let number = self.packet_number_filter.allocate(&mut self.rng, space);
            let header = Header::Short {
                dst_cid,
                number: PacketNumber::new(number, largest_acked),
                spin: match self.spin_enabled {
                    true => self.spin,
                    false => self.rng.random(),
                },
                key_phase: self.key_phase,
            };
            let _span = tracing::enabled!(tracing::Level::TRACE)
                .then(|| trace_span!("send", space = ?SpaceId::Data, pn = number).entered());
            let partial_encode = header.encode(buf);
            if self.peer_params.grease_quic_bit && self.rng.random() {
                buf[start] ^= FIXED_BIT;
            }
            let meta = stream.write(buf, start + size - tag);
            buf.put_bytes(0, tag);
            let packet = Some((number, packet_key));
            partial_encode.finish(&mut buf[start..], header_key, packet);
            self.config.qlog_sink.emit_packet_sent(
                number,
                size,
                SpaceId::Data,
                false,
                now,
                self.orig_rem_cid,
            );
            let packet = SentPacket {
                path_generation: self.path.generation(),
                largest_acked: None,
                time_sent: now,
                size: size as u16,
                ack_eliciting: true,
                retransmits: Default::default(),
                stream_frames: StreamMetaVec::One(meta),
            };
            self.path.sent(number, packet, space);
            self.path.pacing.on_transmit(size as u16);
            packets += 1;
        }
        debug_assert_eq!(buf.len(), first + packets * size);
        space.crypto = Some(crypto);
        if packets > 0 {
            space.time_of_last_ack_eliciting_packet = Some(now);
            self.stats.path.sent_packets += packets as u64;
            self.stats.frame_tx.stream += packets as u64;
        }
        packets
    }

    /// How many such packets may go, with one more after them
    fn run_max(&self, size: usize, most: usize) -> usize {
        let space = &self.spaces[SpaceId::Data];
        let only_data = size == usize::from(self.path.current_mtu())
            && self.path.validated
            && self.path.challenge.is_none()
            && self.path_responses.is_empty()
            && self.datagrams.outgoing.is_empty()
            && space.loss_probes == 0
            && !space.ping_pending
            && !space.immediate_ack_pending
            && !space.pending_acks.can_send()
            && space.pending.is_empty(&self.streams)
            // Reset with the packet before
            && !self.permit_idle_reset;
        if !only_data {
            return 0;
        }
        let window = self.path.congestion.window();
        let window = window.saturating_sub(1 + self.path.in_flight.bytes);
        let with_last = Ord::min(window, self.path.pacing.tokens()) / size as u64;
        let with_keys = self.key_phase_size.saturating_sub(space.sent_with_keys);
        let allowed = Ord::min(with_last, with_keys).saturating_sub(1);
        Ord::min(most, usize::try_from(allowed).unwrap_or(usize::MAX))
    }
}
