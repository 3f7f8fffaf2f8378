"""The planted bugs: where, what instead of what, and the quickest tests that must fail."""

from __future__ import annotations

from typing import NamedTuple

COMMIT_SCENES = "tests/crash/test_commit.py::"
BESIDE = "tests/service/fronts/test_beside.py::"
BATCHES_SCENES = "tests/crash/test_batches.py::"
ROTATION_SCENES = "tests/crash/test_rotation.py::"
RECOVERY_SCENES = "tests/crash/test_recovery.py::"
TRUNCATION_SCENES = "tests/crash/test_truncation.py::"
READING_SCENES = "tests/crash/test_reading.py::"
COMPACTION = "tests/log/test_compaction.py::"
CORRUPTION = "tests/crash/test_corruption.py::"
DSYNC = "tests/disk/test_dsync.py::"
DOUBLE_WRITE = "tests/crash/test_double_write.py::"
CIPHER = "tests/format/test_cipher.py::"
ENCRYPTED = "tests/crash/test_encryption.py::"
GIVING_UP = "tests/log/test_giving_up.py::"
FILTERS = "tests/log/test_filters.py::"
GROUP = "tests/format/test_group.py::"
HISTORIES = "tests/log/test_histories.py::"
METADATA = "tests/crash/test_metadata_damage.py::"
PURGE = "tests/topics/test_purge.py::"
HIDING = "tests/topics/test_hiding.py::"
DELETING = "tests/topics/test_deleting.py::"
READERS = "tests/log/test_readers.py::"
SEEK = "tests/log/test_seek.py::"
THREADS = "tests/disk/test_threads.py::"
URING = "tests/disk/test_uring.py::"
TURNS = "tests/topics/test_turns.py::"
WAITING = "tests/log/test_waiting.py::"


RECOVERED = "walsvc/log/recover/recovery.py"
EXPECTED = "tests/log/test_expected.py::"
SHORTAGES = "tests/crash/test_shortages.py::"
EXAMINE = '(for repair): then the segment ends there.\n    """\n'
SUCCESSOR = "        header, _ = await load_header(disk, name, None)\n    except (Corruption"


class Mutant(NamedTuple):
    """One planted bug.

    Attributes:
        name: what is wrong, for people.
        file: path from the project's root.
        old: text that occurs exactly once in the file.
        new: what takes its place.
        killers: node ids of tests, at least one of which must fail.
        also: more (file, old, new), where the same thing is guarded in several places.
    """

    name: str
    file: str
    old: str
    new: str
    killers: tuple[str, ...]
    also: tuple[tuple[str, str, str], ...] = ()

    @property
    def edits(self) -> list[tuple[str, str, str]]:
        """All (file, old, new)."""
        return [(self.file, self.old, self.new), *self.also]


ORDER = [
    Mutant(
        "what is archived in a directory is not synced",
        "walsvc/engines/archive/objects.py",
        "                sync(file.fileno())\n",
        "",
        ("tests/fuse/test_archive.py::test_what_is_archived_in_a_directory_is_synced_with_its_name",),
    ),
    Mutant(
        "who waits for a shared consumer's record does not wait for its time",
        "walsvc/topics/supply.py",
        "timeout=self._source.opens()",
        "timeout=None",
        ("tests/topics/test_shared.py::test_record_that_is_alone_is_delivered_at_its_time",),
    ),
    Mutant(
        "a worker without a lease is not given again what it was not given",
        "walsvc/topics/hub.py",
        "            self.feed.give_again(lease)\n",
        "            pass\n",
        ("tests/topics/test_shared_given_up.py::test_call_that_is_given_up_at_any_point_loses_no_record",),
    ),
    Mutant(
        "half a link that the kernel took is submitted in a second call",
        "walsvc/disk/uring.py",
        "(QUEUE_FULL, -errno.EAGAIN, -errno.EBUSY)",
        "(QUEUE_FULL, -errno.EAGAIN, -errno.EBUSY, -errno.ENOLINK)",
        (URING + "test_link_that_the_kernel_took_by_halves_is_never_acknowledged",),
    ),
    Mutant(
        "pages that never reached a read-only device are shown",
        "walsvc/disk/directory.py",
        "if (self.mapped or not self.direct) and cached_pages(file):",
        "if False:",
        ("tests/disk/test_shortages.py::test_pages_that_never_reached_a_read_only_device_are_not_shown",),
    ),
    Mutant(
        "RWF_DSYNC believed on FUSE",
        "walsvc/disk/dsync.py",
        "KEPT = (\n",
        'KEPT = (\n    Believed(0x65735546, True, "fs/"),\n    Believed(0x65735546, False, "fs/"),\n',
        (DSYNC + "test_what_is_not_in_the_table_is_doubted",),
    ),
    Mutant(
        "ack before the sync completed",
        "walsvc/log/commit/writing.py",
        "        if self._double_write is None:\n            self._disk.submit(write)\n",
        "        if self._double_write is None:\n            self._disk.submit(write)\n"
        "            write.done(write, None)\n",
        (COMMIT_SCENES + "test_strict_answer_comes_only_after_its_sync_and_the_sync_after_its_write[dsync]",),
    ),
    Mutant(
        "no sync after the write in the commit thread",
        "walsvc/disk/threads.py",
        "    if not dsync:\n        try:\n            system.sync_data",
        "    if dsync:\n        try:\n            system.sync_data",
        (THREADS + "test_one_write_is_one_call_or_write_and_sync",),
    ),
    Mutant(
        "no directory sync for a new segment beside the pipeline",
        "walsvc/log/commit/framing.py",
        "        await rename(name, header.file_name)\n    await disk.sync_directory()\n",
        "        await rename(name, header.file_name)\n",
        (COMMIT_SCENES + "test_new_log_without_room_for_its_reserve_has_a_durable_name_before_the_first_answer",),
    ),
    Mutant(
        "no directory sync after a segment's rename",
        "walsvc/log/commit/rotation.py",
        "                self._complete(group)\n                await self._disk.sync_directory()\n",
        "                self._complete(group)\n",
        (ROTATION_SCENES + "test_loose_directory_loses_a_rename_but_not_the_removal_of_the_segment_before",),
    ),
    Mutant(
        "error of the directory sync dropped",
        "walsvc/log/commit/rotation.py",
        "                self._complete(group)\n                await self._disk.sync_directory()\n",
        "                self._complete(group)\n"
        "                try:\n                    await self._disk.sync_directory()\n"
        "                except OSError:\n                    pass\n",
        (ROTATION_SCENES + "test_directory_fsync_result_dropped",),
    ),
    Mutant(
        "acknowledgements out of LSN order",
        "walsvc/log/commit/pipeline.py",
        "while self._in_flight and self._in_flight[0].flight.done:",
        "while group in self._in_flight:",
        (COMMIT_SCENES + "test_completions_out_of_order_are_answered_in_order",),
    ),
    Mutant(
        "seal written before the successor is durable",
        "walsvc/log/commit/pipeline.py",
        "        write = self._writing.encode(group, self.answered)\n",
        "        write = self._writing.encode(group, self.answered)\n"
        "        if group.beginning is not None:\n"
        "            self._health.loop.create_task(self.rotation.seal(group.beginning.before, group.segment.id))\n",
        (ROTATION_SCENES + "test_new_segment_survives_with_its_name_from_its_first_answer_on",),
    ),
    Mutant(
        "truncation: files go before the checkpoint is written",
        "walsvc/log/extent/reclaim.py",
        "                done = core.changes.try_write(change)\n",
        "                core.metadata.truncated = target\n                await drop_segments(core)\n"
        "                done = core.changes.try_write(change)\n",
        (TRUNCATION_SCENES + "test_file_goes_only_after_the_checkpoint_that_allows_it_is_durable",),
    ),
    Mutant(
        "no memory for a read before a truncation has begun ends the log",
        "walsvc/log/commit/extent.py",
        "if not self._begun and",
        "if False and",
        (SHORTAGES + "test_no_memory_for_a_read_ends_no_truncation",),
    ),
    Mutant(
        "a segment that could not be removed is never tried again",
        "walsvc/log/extent/reclaim.py",
        "if lsn <= self._core.metadata.truncated and not droppable(self._core):",
        "if lsn <= self._core.metadata.truncated:",
        (SHORTAGES + "test_segment_that_cannot_be_removed_ends_no_log_and_goes_later[EMFILE]",),
    ),
    Mutant(
        "the loop keeps a served log that was dropped",
        "walsvc/service/client/remote.py",
        "session.cut, session.purged = weakly(self._cut), weakly(self._hide)",
        "session.cut, session.purged = self._cut, self._hide",
        ("tests/log/test_unclosed.py::test_dropped_served_log_ends_its_connection",),
    ),
    Mutant(
        "whoever cancels all tasks cuts short how a disk is closed",
        "walsvc/disk/posix.py",
        ", unlisted=True",
        "",
        ("tests/crash/test_outside.py::test_closing_is_not_cut_short_by_whoever_cancels_all_tasks[threads]",),
    ),
    Mutant(
        "closing waits for work whose wake-up was lost",
        "walsvc/log/commit/ending.py",
        "until_ended(self._closing, core.background.look)",
        "until_ended(self._closing)",
        (
            "tests/log/test_lost_wakeups.py::"
            "test_closing_ends_in_order_though_any_wake_up_of_the_logs_own_work_was_lost",
        ),
    ),
    Mutant(
        "truncate_after without its intent",
        "walsvc/log/extent/cutting.py",
        '                await core.changes.write({"cut": lsn})\n',
        "",
        (TRUNCATION_SCENES + "test_truncate_after_cut_at_any_operation_is_done_or_not_begun",),
    ),
]

CHECKS = [
    Mutant(
        "CRC of the payload not checked",
        "walsvc/format/group.py",
        "if crc32c(body[start:middle]) != header.payload_crc:",
        "if False:",
        (GROUP + "test_every_flipped_bit_of_a_group_is_detected",),
    ),
    Mutant(
        "CRC of index, metadata and padding not checked",
        "walsvc/format/group.py",
        "if crc32c(body[middle:end]) != header.rest_crc:",
        "if False:",
        (GROUP + "test_every_flipped_bit_of_a_group_is_detected",),
    ),
    Mutant(
        "CRC of the header not checked",
        "walsvc/format/group.py",
        "if crc32c(data[at : at + HEADER_CRC_OFFSET]) != header_crc:",
        "if False:",
        (GROUP + "test_every_flipped_bit_of_a_group_is_detected",),
    ),
    Mutant(
        "length in the header trusted before its CRC",
        "walsvc/format/chain.py",
        "        header = decode_group_header(data, at)\n        self._check_place(header)\n",
        '        claimed = int.from_bytes(data[at + 88 : at + 92], "little")\n'
        "        if len(data) - at < claimed:\n            return Need(claimed)\n"
        "        header = decode_group_header(data, at)\n        self._check_place(header)\n",
        (RECOVERY_SCENES + "test_header_crc_is_checked_before_any_length_is_believed",),
    ),
    Mutant(
        "chain (previous_crc) not checked",
        "walsvc/format/chain.py",
        "if header.previous_crc != self.previous_crc:",
        "if False:",
        (GROUP + "test_valid_group_at_the_wrong_place_is_refused[previous_crc]",),
    ),
    Mutant(
        "generation not checked",
        "walsvc/format/chain.py",
        "if header.generation < self.generation:",
        "if False:",
        (GROUP + "test_group_of_an_earlier_generation_is_refused_and_of_a_later_one_taken",),
    ),
    Mutant(
        "recycling without the segment check",
        "walsvc/format/chain.py",
        "if header.segment != self.segment:",
        "if False:",
        (GROUP + "test_valid_group_at_the_wrong_place_is_refused[segment]",),
    ),
    Mutant(
        "group at the wrong offset taken",
        "walsvc/format/chain.py",
        "if header.offset != self.offset:",
        "if False:",
        (GROUP + "test_valid_group_at_the_wrong_place_is_refused[offset]",),
    ),
    Mutant(
        "name of a segment not compared with its header",
        "walsvc/log/read/stream.py",
        "if first_lsn is not None and header.first_lsn != first_lsn:",
        "if False:",
        (CORRUPTION + "test_renamed_segment_is_corruption_and_says_its_own_name",),
    ),
    Mutant(
        "padding not zeroed",
        "walsvc/format/group.py",
        "    padded = rest + bytes(header.group_bytes - end - len(rest))\n    view[end:] = padded\n",
        "    view[end : end + len(rest)] = rest\n    padded = bytes(view[end:])\n",
        (COMMIT_SCENES + "test_padding_that_leaks_old_bytes",),
    ),
]

RECOVERY = [
    Mutant(
        "evidence ignored: always a torn tail",
        "walsvc/log/recover/judging.py",
        "looked, evidence = active, await active.stream.evidence()",
        "looked, evidence = active, None",
        (CORRUPTION + "test_zero_hole_before_intact_groups_is_corruption",),
    ),
    Mutant(
        "what a busy writer wrote between two looks taken for damage",
        "walsvc/log/recover/judging.py",
        "                await each.read_on()\n",
        "                pass\n",
        ("tests/log/test_beside_a_writer.py::test_group_written_between_the_end_and_the_look_ahead_is_no_damage",),
    ),
    Mutant(
        "missing segment in the middle not noticed",
        "walsvc/log/recover/census.py",
        "    if newest.ordinal - oldest.ordinal == high:\n",
        "    if True:\n",
        (CORRUPTION + "test_middle_segment_missing_is_corruption",),
    ),
    Mutant(
        "lost last segment taken for an unclean close",
        "walsvc/log/recover/verdict.py",
        "return Verdict.LOST_SUCCESSOR if after is After.NONE else",
        "return Verdict.UNCLEAN if after is After.NONE else",
        (ROTATION_SCENES + "test_sealed_log_without_its_last_segment_is_not_taken_for_complete",),
    ),
    Mutant(
        "step that was cut short goes on",
        "walsvc/log/commit/whole.py",
        '                self._health.broken(f"{what} was cut short", error)\n',
        "",
        ("tests/log/test_whole.py::test_step_that_is_cut_short_fails_the_log_and_an_answer_does_not",),
    ),
    Mutant(
        "turn that outlives its task",
        "walsvc/tasks.py",
        "            task.add_done_callback(self._end)\n",
        "",
        ("tests/log/test_whole.py::test_turn_ends_with_its_task_and_when_the_task_takes_another",),
    ),
    Mutant(
        "read error taken for the end",
        "walsvc/log/read/stream.py",
        "        got = await piece.reading\n",
        "        try:\n            got = await piece.reading\n        except OSError:\n            got = 0\n",
        (RECOVERY_SCENES + "test_read_error_in_recovery_is_an_error_and_never_the_end_of_the_log",),
    ),
    Mutant(
        "file that was cut short taken as it is",
        "walsvc/log/read/stream.py",
        "    if file_bytes < header.file_bytes:\n",
        "    if False:\n",
        (CORRUPTION + "test_file_cut_short_is_corruption",),
    ),
    Mutant(
        "sync of recovered data left out",
        "walsvc/log/opening.py",
        "    for name in found.unsynced:\n        await disk.sync(name)\n",
        "",
        (
            RECOVERY_SCENES
            + "test_kill_between_write_and_sync_then_restart_then_power_cut_keeps_what_the_restart_showed",
        ),
        also=((RECOVERED, EXAMINE + "    await disk.sync(name)\n", EXAMINE),),
    ),
    Mutant(
        "spare of a killed process used without a sync",
        "walsvc/log/opening.py",
        "            await disk.sync(file)  # a process",
        "            pass  # a process",
        (ROTATION_SCENES + "test_file_prepared_by_a_killed_process_is_synced_before_its_first_answer",),
        also=((RECOVERED, "        await disk.sync(name)\n" + SUCCESSOR, SUCCESSOR),),
    ),
    Mutant(
        "successor not adopted",
        RECOVERED,
        "    return successor if successor.groups else None\n",
        "    return None\n",
        (ROTATION_SCENES + "test_new_segment_survives_with_its_name_from_its_first_answer_on",),
    ),
    Mutant(
        "dropped successor not removed",
        "walsvc/log/opening.py",
        "        await disk.remove(name)\n        await disk.sync_directory()\n    double_write",
        "        pass\n    double_write",
        (ROTATION_SCENES + "test_successor_dropped_after_a_power_cut_never_comes_back",),
    ),
    Mutant(
        "OPEN group left out",
        "walsvc/log/opening.py",
        "            await writer.core.changes.open()\n",
        "",
        (RECOVERY_SCENES + "test_groups_of_an_earlier_opening_never_come_back_behind_the_same_record",),
    ),
    Mutant(
        "unfinished batch counted",
        "walsvc/format/chain.py",
        "        return None if header.flags & Flag.BATCH_END else batch\n",
        "        return None\n",
        (COMMIT_SCENES + "test_kernel_atomicity_of_io_uring_batches_taken_for_granted",),
    ),
]

FAILING = [
    Mutant(
        "retry of a failed fsync",
        "walsvc/disk/threads.py",
        "            system.sync_data(write.file)\n        except OSError as error:\n            return error\n",
        "            system.sync_data(write.file)\n        except OSError:\n            os.fdatasync(write.file)\n",
        (THREADS + "test_failed_sync_is_never_repeated",),
    ),
    Mutant(
        "failure flag cleared by a later success",
        "walsvc/log/commit/pipeline.py",
        "        elif self._health.failure is None:\n",
        "        else:\n            self._health.failure = None\n",
        (COMMIT_SCENES + "test_one_failure_flag_for_all_groups",),
    ),
    Mutant(
        "waiters of a failed group not told",
        "walsvc/log/commit/pipeline.py",
        "            self._health.note_told(group.answers.fail(self._health.failure_told))\n",
        "            pass\n",
        (WAITING + "test_failed_sync_tells_every_waiter_the_original_errno_and_is_terminal",),
    ),
    Mutant(
        "short write taken for success (thread)",
        "walsvc/disk/threads.py",
        "        if written != len(piece):\n",
        "        if written == 0:\n",
        (THREADS + "test_short_write_fails_and_nothing_is_synced",),
    ),
    Mutant(
        "short write taken for success (io_uring)",
        "walsvc/disk/uring.py",
        "    return written if written < 0 else -errno.EIO\n",
        "    return written if written < 0 else 0\n",
        (URING + "test_judge_every_pair_of_results",),
    ),
    Mutant(
        "-ECANCELED taken for success",
        "walsvc/disk/uring.py",
        "        return synced if synced < 0 else 0\n",
        "        return synced if synced < 0 and synced != -errno.ECANCELED else 0\n",
        (URING + "test_judge_every_pair_of_results",),
    ),
    Mutant(
        "LSN burnt by NoSpace",
        "walsvc/log/commit/accepting.py",
        "                return False\n        self._put(",
        "                self._placement.group.first_lsn += 1\n                return False\n        self._put(",
        (WAITING + "test_full_device_burns_no_lsn_and_appends_go_on_after_space_is_freed",),
    ),
]

SHARING = [
    Mutant(
        "buffer given back before the write's completion",
        "walsvc/log/commit/writing.py",
        "        if self._double_write is None:\n            self._disk.submit(write)\n",
        "        if self._double_write is None:\n            self._disk.submit(write)\n"
        "            self._pool.give_back(group.flight.buffer)\n",
        (COMMIT_SCENES + "test_buffer_cleared_before_the_fsync",),
    ),
    Mutant(
        "durable_lsn advanced inside an unfinished batch",
        "walsvc/log/commit/pipeline.py",
        "            if not head.batch_lsn or head.flags & Flag.BATCH_END:",
        "            if True:",
        (BATCHES_SCENES + "test_batch_visible_before_written",),
    ),
    Mutant(
        "batch given up without a new generation",
        "walsvc/log/commit/catalog.py",
        "        self.next_generation()\n        self.rewind()\n",
        "        self.rewind()\n",
        (COMMIT_SCENES + "test_no_two_answered_groups_share_generation_segment_and_offset",),
    ),
    Mutant(
        "reader sees Relaxed records",
        "walsvc/log/read/sources.py",
        "end = self._segments.durable_lsn + 1",
        "end = self._segments.next_lsn",
        (READING_SCENES + "test_reader_that_keeps_up_with_groups_in_flight_sees_each_only_when_it_is_durable",),
        also=(
            (
                "walsvc/log/read/sources.py",
                "if self._cursor.next_lsn <= log.durable_lsn:",
                "if self._cursor.next_lsn < log.next_lsn:",
            ),
        ),
    ),
    Mutant(
        "Relaxed records wait for the next append",
        "walsvc/log/commit/core.py",
        "        relaxed.arm()\n",
        "        pass\n",
        (COMMIT_SCENES + "test_timer_that_only_fires_on_the_next_append",),
    ),
    Mutant(
        "cap on pending bytes ignored",
        "walsvc/log/commit/placement.py",
        "pending = self._config.max_pending_bytes - self.pending_bytes",
        "pending = 1 << 60",
        (WAITING + "test_stall_of_thirty_seconds_bounds_memory_and_acknowledges_nothing",),
    ),
    Mutant(
        "cancelled append written although it was still waiting",
        "walsvc/log/commit/queue.py",
        "            if not entry.future.done():\n                try:\n",
        "            if True:\n                try:\n",
        (WAITING + "test_append_cancelled_in_the_turn_in_which_it_could_go_writes_nothing",),
    ),
    Mutant(
        "lock not taken",
        "walsvc/disk/lock.py",
        "            self._lock_directory(path)\n            self._lock_file(path)\n",
        "            pass\n",
        ("tests/log/test_guards.py::test_second_opener_gets_locked_at_once_and_the_first_goes_on",),
    ),
]

SECRECY = [
    Mutant(
        "nonce made of the LSN",
        "walsvc/format/cipher.py",
        "header = header._replace(nonce=os.urandom(NONCE_BYTES))",
        'header = header._replace(nonce=header.first_lsn.to_bytes(NONCE_BYTES, "little"))',
        (ENCRYPTED + "test_no_nonce_twice_over_restarts_torn_tails_truncation_and_retried_batches",),
    ),
    Mutant(
        "nonce made of everything that is known of the group's place",
        "walsvc/format/cipher.py",
        "header = header._replace(nonce=os.urandom(NONCE_BYTES))",
        "header = header._replace(nonce=crc32c(repr(header[:8]).encode()).to_bytes(NONCE_BYTES, 'little'))",
        (ENCRYPTED + "test_same_log_continued_twice_from_one_copy_uses_other_nonces",),
    ),
    Mutant(
        "group header not authenticated",
        "walsvc/format/cipher.py",
        "self._decrypt_into(header.nonce, sealed, head[:CRCS_OFFSET], opened[GROUP_HEADER_BYTES:])",
        "self._decrypt_into(header.nonce, sealed, b'', opened[GROUP_HEADER_BYTES:])",
        (CIPHER + "test_ciphertext_is_bound_to_its_place",),
        (
            (
                "walsvc/format/cipher.py",
                "self._encrypt_into(header.nonce, plain, fields[:CRCS_OFFSET], view[start:end])",
                "self._encrypt_into(header.nonce, plain, b'', view[start:end])",
            ),
        ),
    ),
    Mutant(
        "segment key not bound to the segment's header",
        "walsvc/format/cipher.py",
        "KEY_INFO + bound)",
        "KEY_INFO)",
        (CIPHER + "test_group_does_not_open_under_an_altered_segment_header",),
    ),
    Mutant(
        "forged group taken for a torn tail",
        "walsvc/log/read/stream.py",
        '            raise Corruption(\n                f"{error.reason}; its CRCs are right",',
        '            raise error\n            raise Corruption(\n                f"{error.reason}; its CRCs are right",',
        (ENCRYPTED + "test_forged_group_is_no_torn_tail_and_opening_changes_nothing",),
    ),
    Mutant(
        "encrypted group passed over by a header that was not authenticated",
        "walsvc/log/read/filtered.py",
        "if beyond > 0 and self.cipher is None and not wanted",
        "if beyond > 0 and not wanted",
        ("tests/log/test_encryption.py::test_forged_header_does_not_let_a_filtering_reader_step_over_a_group",),
    ),
    Mutant(
        "wrong key not told from damage",
        "walsvc/format/cipher.py",
        "if check_of(secret, header) != header.key_check:",
        "if False:",
        (ENCRYPTED + "test_missing_or_wrong_key_is_told_and_leaves_the_device_as_it_was",),
    ),
    Mutant(
        "files with plain records recycled in an encrypted log",
        "walsvc/log/extent/dropping.py",
        "    if core.tail.keys is None:\n        return True\n",
        "    return True\n",
        ("tests/log/test_encryption.py::test_dropped_plain_segments_are_removed_and_not_recycled_by_an_encrypted_log",),
    ),
    Mutant(
        "old key goes on after use_keys",
        "walsvc/log/extent/rekey.py",
        "        if changes_key(core, keys):\n            await begin_under(core, keys)\n",
        "",
        ("tests/log/test_encryption.py::test_after_use_keys_the_old_segment_gets_nothing_but_its_seal",),
    ),
    Mutant(
        "room for the tag forgotten",
        "walsvc/log/commit/segment.py",
        "self.tag_bytes = 0 if self.cipher is None else TAG_BYTES",
        "self.tag_bytes = 0",
        ("tests/log/test_encryption.py::test_closed_group_and_the_limits_of_a_segment_count_the_tag",),
    ),
]

PURGING = [
    Mutant(
        "a purge mark falls",
        "walsvc/log/extent/purging.py",
        "max(min(limit, core.next_lsn), purges.get(name, 0))",
        "min(limit, core.next_lsn)",
        (PURGE + "test_mark_never_falls",),
    ),
    Mutant(
        "a purge mark hides the LSNs that truncate_after has made free",
        "walsvc/format/meta.py",
        "        for state in (self.purges, self.floors):\n            state.update(",
        "        for state in (self.floors,):\n            state.update(",
        (PURGE + "test_truncate_after_lowers_marks_so_that_reused_lsns_are_visible",),
    ),
    Mutant(
        "a topic's limit of age looks at the wall clock alone",
        "walsvc/log/extent/keeping.py",
        "            age = min(age, (wall - record.timestamp_ns) / 1e9)\n",
        "            age = (wall - record.timestamp_ns) / 1e9\n",
        ("tests/topics/test_limits.py::test_records_go_when_they_are_old_by_both_clocks",),
    ),
    Mutant(
        "a topic's limit drops what is held",
        "walsvc/log/extent/keeping.py",
        "            target = min(target, self._reclaimer.needs.lowest_hold())\n",
        "",
        ("tests/topics/test_limits.py::test_holds_keep_and_consumers_are_told",),
    ),
    Mutant(
        "a range hides the LSNs that truncate_after has made free",
        "walsvc/format/meta.py",
        "        self.hidden.cut(lsn, count_of)\n",
        "",
        (HIDING + "test_truncate_after_shows_what_is_written_in_the_place_of_what_was_hidden",),
    ),
    Mutant(
        "a range does not know how many records a cut has left in it",
        "walsvc/format/hidden.py",
        "_replace(last=lsn, upto=count_of(topic) if topic else 0)",
        "_replace(last=lsn)",
        (HIDING + "test_cut_inside_of_what_a_purge_hides_leaves_the_right_count",),
    ),
    Mutant(
        "a truncated topic's consumer goes on in silence",
        "walsvc/log/extent/hider.py",
        "            positions = plan.moves(segments.first_of)\n",
        "            positions = dict.fromkeys(plan.positions, plan.target)\n",
        (HIDING + "test_consumers_stand_as_after_a_truncation_of_the_log",),
    ),
    Mutant(
        "a truncation of the log forgives a consumer what its topic's truncation took",
        "walsvc/log/extent/needs.py",
        "if key not in self.overtaken and at >= first_of(topic_of(key))",
        "if key not in self.overtaken",
        (HIDING + "test_position_that_was_overtaken_stays_so_over_a_restart_and_a_truncation_of_the_log",),
    ),
    Mutant(
        "compaction forgets the ranges by which a topic is counted",
        "walsvc/log/extent/compaction.py",
        "        return {**made, HIDDEN: forgetting_row(0, last)} if last else made\n",
        "        return {**made, HIDDEN: forgetting_row(1, 1 << 62)}\n",
        (HIDING + "test_compaction_gives_the_room_back_and_counts_stay",),
    ),
    Mutant(
        "no directory sync after a compacted segment's rename",
        "walsvc/log/extent/compaction.py",
        "        await patiently(disk.rename, rewrite_name(first), name)\n        await disk.sync_directory()\n",
        "        await patiently(disk.rename, rewrite_name(first), name)\n",
        ("tests/crash/test_compaction.py::test_marks_go_only_when_the_compacted_files_are_durable",),
    ),
    Mutant(
        "a file that was replaced under a reader taken for damage",
        "walsvc/log/read/reader.py",
        "        return not known\n",
        "        return False\n",
        (COMPACTION + "test_readers_beside_a_compaction_see_all_and_no_damage",),
    ),
    Mutant(
        "a compacted segment does not say where its seal stands",
        "walsvc/log/extent/rewrite.py",
        "header._replace(seal_at=layout.seal_at)",
        "header._replace(seal_at=0)",
        (COMPACTION + "test_summaries_are_found_in_compacted_segments",),
    ),
]

REWRITING = [
    Mutant(
        "log written before its slot is durable",
        "walsvc/log/commit/double_write.py",
        "        self._disk.submit(Write(self._file, slot * self._slot_bytes, buffer[start:end], after))\n",
        "        self._disk.submit(Write(self._file, slot * self._slot_bytes, buffer[start:end], after))\n"
        "        self._disk.submit(write)\n",
        (DOUBLE_WRITE + "test_log_is_written_only_after_its_slot_is_durable",),
        (
            (
                "walsvc/log/commit/double_write.py",
                "        else:\n            self._disk.submit(write)\n\n    def _ended",
                "\n    def _ended",
            ),
        ),
    ),
    Mutant(
        "image laid over the log beyond the end of its group",
        "walsvc/format/double_write.py",
        "return self.group_offset + self.group_bytes if self.whole else self.group_offset",
        "return self.offset + self.image_bytes",
        (DOUBLE_WRITE + "test_older_slot_restores_its_group_and_leaves_what_stands_behind_it",),
    ),
    Mutant(
        "a stale slot restored where the log is whole",
        "walsvc/log/recover/overlay.py",
        "if own is None or not await breaks(own, slot.group_offset):",
        "if own is None:",
        (DOUBLE_WRITE + "test_stale_slots_never_bring_back_or_overwrite_anything",),
    ),
    Mutant(
        "CRC of a slot's image not checked",
        "walsvc/format/double_write.py",
        "    if len(image) != header.image_bytes or crc32c(image) != header.image_crc:\n",
        "    if len(image) != header.image_bytes:\n",
        ("tests/format/test_double_write.py",),
    ),
    Mutant(
        "two groups that share a block in flight",
        "walsvc/log/commit/pipeline.py",
        "(len(in_flight) < PIPELINE and not in_flight[-1].segment.packed)",
        "len(in_flight) < PIPELINE",
        (DOUBLE_WRITE + "test_slots_are_wiped_only_while_nothing_is_on_its_way",),
    ),
    Mutant(
        "the last block's bytes forgotten when a batch is given up",
        "walsvc/log/commit/tail.py",
        "        segment.tail = self.before.block\n",
        "",
        (DOUBLE_WRITE + "test_batch_that_began_a_packed_segment_is_given_up_to_behind_its_snapshot",),
    ),
]

READING = [
    Mutant(
        "damage that tells the same of two files taken for damage",
        "walsvc/log/recover/looking.py",
        "now = told, await seen.births()",
        "now = told",
        (
            "tests/log/test_beside_a_writer.py::"
            "test_segment_that_a_cut_exchanges_under_several_looks_is_no_damage[find]",
        ),
    ),
    Mutant(
        "a record of an unknown required type passed over",
        "walsvc/log/read/filter.py",
        "return type >= REQUIRED or self.types is None or type in self.types",
        "return self.types is None or type in self.types",
        (FILTERS + "test_unknown_required_type_stops_and_is_named",),
    ),
    Mutant(
        "labels that are not named taken for labels that are not there",
        "walsvc/format/labels.py",
        "return not isinstance(named, list) or any(each in named for each in wanted)",
        "return isinstance(named, list) and any(each in named for each in wanted)",
        (FILTERS + "test_groups_say_which_labels_they_have",),
    ),
    Mutant(
        "time taken to rise from row to row",
        "walsvc/format/index.py",
        "            lows[-1] = min(lows[-1], time)\n",
        "",
        (FILTERS + "test_time_filters_do_not_trust_the_clock",),
    ),
    Mutant(
        "rows of a batch that was given up stay in the index",
        "walsvc/log/commit/tail.py",
        "        segment.index.rewind(offset)\n",
        "",
        (SEEK + "test_index_survives_a_crash_and_a_batch_that_is_given_up",),
    ),
    Mutant(
        "a place in a wrong index believed",
        "walsvc/log/read/reader.py",
        "        if self._suspect is None:  # what looks damaged",
        "        if True:  # what looks damaged",
        (SEEK + "test_a_wrong_index_is_not_believed",),
    ),
    Mutant(
        "pages of others dropped from the page cache",
        "walsvc/disk/mapped.py",
        "    return pages.raw.translate(LOWEST_BIT)\n",
        "    return bytes(len(pages.raw))\n",
        (READERS + "test_replay_leaves_the_page_cache_as_it_was",),
    ),
    Mutant(
        "records counted as delivered before the batch is complete",
        "walsvc/topics/delivering.py",
        "            return [self._deliver() for _ in range(self._fitting(max_bytes, max_records))]\n",
        "            batch = [self._deliver() for _ in range(self._fitting(max_bytes, max_records))]\n"
        "            await asyncio.sleep(0)\n            return batch\n",
        ("tests/topics/test_consumers.py::test_batch_that_its_caller_gives_up_is_delivered_again",),
    ),
    Mutant(
        "acknowledgement goes beyond a cut that came first",
        "walsvc/topics/consumer.py",
        "            standing = min(position, self._segments.cuts.since(cuts))",
        "            standing = position",
        (TURNS + "test_ack_that_waited_for_a_cut_does_not_go_beyond_it",),
    ),
    Mutant(
        "name of a consumer checked before its turn",
        "walsvc/topics/registry.py",
        "            self._refuse_used(key, name)\n            return wanted(key)",
        "            return wanted(key)",
        (TURNS + "test_consumer_that_is_opened_meanwhile_is_neither_deleted_nor_moved",),
    ),
    Mutant(
        "iteration ends with the first timeout",
        "walsvc/log/read/iteration.py",
        "        try:\n            items = await self._source.take()\n        finally:\n            self._taking = False\n",
        "        items = await self._source.take()\n        self._taking = False\n",
        (GIVING_UP + "test_call_that_is_given_up_at_any_point_loses_nothing_and_keeps_nothing",),
    ),
    Mutant(
        "groups taken by a look that was given up are not shown by the next one",
        "walsvc/log/recover/watched.py",
        "                self._unsynced = tail  # and",
        "                pass  # and",
        (GIVING_UP + "test_look_of_a_read_only_log_that_is_given_up_hides_nothing_from_the_next_one",),
    ),
    Mutant(
        "server goes on with calls whose callers have given up",
        "walsvc/service/client/call.py",
        "            self._session.send(Cancel(self._frame.id))\n",
        "",
        (GIVING_UP + "test_calls_that_a_stalled_server_does_not_answer_are_given_up_there_too",),
    ),
    Mutant(
        "client sends what was called behind a batch before the batch is sent again",
        "walsvc/service/client/sent_batches.py",
        "        self._account.pulse()\n        return not self._keeps_back\n",
        "        self._account.pulse()\n        return True\n",
        ("tests/service/test_order.py::test_append_behind_a_batch_in_parts_stays_behind_it_over_lost_connections",),
    ),
    Mutant(
        "client sends again more than the server gives credit for",
        "walsvc/service/client/account.py",
        "        return self._used_requests < self.limits.requests_max and self.credit.fits(request.size)\n",
        "        return True\n",
        ("tests/service/test_account.py::test_what_the_server_gives_no_credit_for_waits",),
    ),
    Mutant(
        "a busy client comes before one that asks for little",
        "walsvc/service/server/turns.py",
        "(self._light if pace.light else self._heavy).append((pace, go_on, units))",
        "self._heavy.append((pace, go_on, units))",
        ("tests/service/test_turns.py::test_light_ones_come_before_those_who_keep_the_server_busy",),
    ),
    Mutant(
        "a turn of the loop does all that waits",
        "walsvc/service/server/turns.py",
        "            while self._heavy and self.left > self._kept:\n",
        "            while self._heavy:\n",
        ("tests/service/test_turns.py::test_turn_of_the_loop_is_bounded_whoever_waits",),
    ),
    Mutant(
        "what clients that are gone have left is ended in one turn of the loop",
        "walsvc/service/server/turns.py",
        "        while self._left and self._cleared < SLICE:\n",
        "        while self._left:\n",
        (
            "tests/service/test_leaving.py::test_clients_that_go_together_are_ended_a_slice_in_each_turn_and_count_until_then",
        ),
    ),
    Mutant(
        "a stream that has ended holds the error that holds it",
        "walsvc/service/server/streams.py",
        "            self.task = self._granted = None",
        "            pass",
        ("tests/service/test_leaving.py::test_nothing_that_a_client_had_open_waits_for_the_garbage_collector",),
    ),
    Mutant(
        "an append over lower limits takes its frame with it",
        "walsvc/service/client/sent.py",
        "len(payload) <= limits.record_bytes_max for",
        "False for",
        ("tests/service/test_order.py::test_appends_of_one_turn_share_no_fate_where_limits_have_become_smaller",),
    ),
    Mutant(
        "large batches of all logs wait for the same place",
        "walsvc/service/server/large.py",
        "        return sum(each is log for each in self._written.values()) < WRITTEN_MAX\n",
        "        return len(self._written) < WRITTEN_MAX\n",
        ("tests/service/test_large.py::test_few_batches_are_given_to_a_log_at_a_time_and_each_log_has_its_own",),
    ),
    Mutant(
        "who gives up a large batch frees no place",
        "walsvc/service/server/large.py",
        "        self._places.pop(batch, None)\n        self._written",
        "        self._written",
        ("tests/service/test_large.py::test_who_finds_no_place_is_not_heard_until_one_is_free",),
    ),
    Mutant(
        "all clients that come at once are let in in one turn of the loop",
        "walsvc/service/server/entrance.py",
        "            if count >= ACCEPTED_AT_LEAST and not self._turns.free:\n",
        "            if False:\n",
        ("tests/service/test_comers.py::test_some_clients_are_let_in_in_each_turn_however_busy_the_server_is",),
    ),
    Mutant(
        "attributes that a frame has once are not counted for each of its records",
        "walsvc/service/server/requests.py",
        "                copied = count * len(frame.attributes)\n",
        "                copied = 0\n",
        ("tests/service/test_limits.py::test_attributes_count_for_each_record_that_has_them_while_it_is_not_answered",),
    ),
    Mutant(
        "streams that wait for credit keep what their readers hold",
        "walsvc/service/server/outgoing.py",
        "        while self.resting_bytes > self._limit // RESTING:\n",
        "        while False:\n",
        ("tests/service/test_outgoing.py::test_streams_without_credit_hold_no_readers",),
    ),
    Mutant(
        "a client may have as much unsent however much others have",
        "walsvc/service/server/outgoing.py",
        "min(UNSENT_MAX, max((self._limit - self.bytes) // SHARE, UNSENT_MIN))",
        "UNSENT_MAX",
        ("tests/service/test_outgoing.py::test_allowance_shrinks_as_others_have_more",),
    ),
    Mutant(
        "client lists a topic only once its first append's callbacks have run",
        "walsvc/service/client/common.py",
        "            self._made(done)\n",
        "            pass\n",
        ("tests/topics/test_topics.py::test_topic_is_made_by_its_first_record_and_survives_reopening",),
    ),
]

HISTORY = [
    Mutant(
        "a segment of another history passes at opening",
        RECOVERED,
        "            await check_boundary(disk, names[ids[place - 1]], ids[place - 1], each.header)\n",
        "            pass\n",
        (HISTORIES + "test_a_segment_of_another_copy_of_the_log_is_refused",),
    ),
    Mutant(
        "a reader goes on to a segment of another history",
        "walsvc/log/read/reader.py",
        "            await self._cross(ids[place - 1], header)\n",
        "            pass\n",
        (HISTORIES + "test_a_segment_of_another_copy_of_the_log_is_refused",),
    ),
    Mutant(
        "a generation that falls from segment to segment passes",
        "walsvc/log/read/boundary.py",
        "    if before.generation > after.generation:\n",
        "    if before.generation > after.generation + 9:\n",
        (HISTORIES + "test_segments_of_an_older_walsvc_whose_generation_falls_are_refused",),
    ),
    Mutant(
        "a rewritten segment forgets what its groups were at first",
        "walsvc/log/extent/rewrite.py",
        "content.header._replace(last_crc=raw.header.last_crc or last_crc)",
        "content.header._replace(last_crc=0)",
        (HISTORIES + "test_compacted_segments_keep_what_their_successors_name",),
    ),
    Mutant(
        "a batch that was given up leaves its last group as what the next segment follows",
        "walsvc/log/commit/tail.py",
        "        segment.links.last_crc, segment.links.last_at = self.before.last\n",
        "",
        (HISTORIES + "test_a_batch_that_is_given_up_is_not_what_the_next_segment_follows",),
    ),
    Mutant(
        "the segment before the newest one is not synced at opening",
        RECOVERED,
        "bisect_left(ids, tail[0].header.first_lsn) - 1, 0) :]],\n",
        "bisect_left(ids, tail[0].header.first_lsn), 0) :]],\n",
        (DOUBLE_WRITE + "test_seal_that_a_killed_process_left_unsynced_is_synced_before_its_slot_is_used_again",),
    ),
    Mutant(
        "what was durable before damaged metadata is no evidence",
        "walsvc/format/chain.py",
        " or later.durable_end > self.offset\n",
        "\n",
        (METADATA + "test_verify_finds_damaged_metadata_of_a_closed_log",),
    ),
    Mutant(
        "the mark of an orderly close overtakes metadata",
        "walsvc/log/commit/ending.py",
        "                await core.pipeline.quiet()  # metadata too",
        "                await core.pipeline.rotation.ended()  # metadata too",
        (METADATA + "test_close_waits_for_metadata_that_is_still_on_its_way",),
    ),
]

PLACES = [
    Mutant(
        "a file that has another name recycled",
        "walsvc/log/commit/spares.py",
        " or not await self._disk.reusable(old, old_bytes)",
        "",
        ("tests/log/test_foreign_files.py::test_recycling_leaves_a_file_that_has_another_name",),
    ),
    Mutant(
        "a prepared file that somebody has cut begun",
        "walsvc/disk/directory.py",
        "return status.st_nlink == 0 or status.st_size < self._handles.lengths[file]",
        "return status.st_nlink == 0",
        ("tests/log/test_foreign_files.py::test_files_that_wait_to_be_used_may_be_cut_under_a_log",),
    ),
    Mutant(
        "an active segment that somebody has cut goes on",
        "walsvc/disk/handles.py",
        "if opened.st_size < self.lengths[file]:",
        "if opened.st_size < 0:",
        ("tests/log/test_displaced.py::test_writer_notices_at_the_next_flush",),
    ),
    Mutant(
        "who reads is not told of the length of a file that takes a segment's place",
        "walsvc/log/commit/rotation.py",
        "                self._catalog.resize(segment.id, segment.header.file_bytes)  # who reads meanwhile finds the new file\n",
        "",
        (
            "tests/crash/test_full_device.py::test_who_reads_while_a_segment_takes_the_place_of_one_of_the_reserve_finds_no_damage",
        ),
    ),
    Mutant(
        "opening waits for what it cannot be given",
        "walsvc/log/opening.py",
        "            limit.reschedule(core.health.loop.time())\n",
        "",
        ("tests/crash/test_shortages.py::test_opening_whose_segment_cannot_take_its_name_ends_with_the_reason",),
    ),
    Mutant(
        "a reserve that has another name counts",
        "walsvc/log/commit/reserve.py",
        "if not await self._usable(name):",
        "if name not in self.files:",
        ("tests/log/test_foreign_files.py::test_reserve_that_a_backup_shares_is_made_anew",),
    ),
    Mutant(
        "the directory not locked",
        "walsvc/disk/lock.py",
        "            self._lock_directory(path)\n",
        "",
        ("tests/log/test_displaced.py::test_second_writer_stays_out_without_the_lock_file",),
    ),
    Mutant(
        "LOCK not looked at again",
        "walsvc/disk/directory.py",
        "            self._lock.check()\n",
        "            pass\n",
        ("tests/log/test_displaced.py::test_writer_notices_at_the_next_flush",),
    ),
    Mutant(
        "age by the wall clock alone",
        "walsvc/log/extent/aging.py",
        "min(by_process, (wall - ended) / 1e9)",
        "(wall - ended) / 1e9",
        ("tests/log/test_aging.py::test_clock_set_ahead_drops_nothing_that_is_young",),
    ),
    Mutant(
        "records take the reserve",
        "walsvc/log/commit/segment.py",
        "        if self.header.optional & METADATA_ONLY:\n            return 0\n",
        "",
        ("tests/crash/test_full_device.py",),
    ),
    Mutant(
        "half a copy taken for a log",
        "walsvc/disk/paths.py",
        "        os.stat(UNFINISHED, dir_fd=descriptor, follow_symlinks=False)\n",
        "        return descriptor\n",
        ("tests/log/test_destination.py::test_half_a_copy_is_no_log_until_it_is_made_again",),
    ),
]

TARGETS = "tests/test_targets.py::"
REACHING = [
    Mutant(
        "a URL with a scheme in capitals taken for a path",
        "walsvc/targets.py",
        'SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")',
        'SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):")',
        (TARGETS + "test_mistake_is_refused_at_once_and_makes_nothing",),
    ),
    Mutant(
        "a login said to a server without TLS",
        "walsvc/engines/jetstream/encryption.py",
        "    return EncryptedClient() if encryption.needed else Client()\n",
        "    return Client()\n",
        ("tests/engines/test_nats_tls.py::test_server_without_tls_hears_nothing",),
    ),
]

CONDITIONS = [
    Mutant(
        "a condition decided when the append is called, not when it is accepted",
        "walsvc/log/commit/queue.py",
        "            no_space = self.no_space()\n            if self._accepting.accept(entry, ",
        "            entry.expected, no_space = None, self.no_space()\n            if self._accepting.accept(entry, ",
        (EXPECTED + "test_the_decision_is_made_when_the_turn_has_come",),
    ),
    Mutant(
        "records of the filling group that do not count for a condition",
        "walsvc/log/commit/conditions.py",
        "last = self._placement.group.last_of(number) or metadata.topics.last_of(number)",
        "last = self._metadata.topics.last_of(number)",
        (EXPECTED + "test_many_expectations_look_at_each_record_of_the_group_once",),
    ),
    Mutant(
        "a truncated record that still counts for a condition",
        "walsvc/log/commit/conditions.py",
        "return last if last >= first else 0",
        "return last",
        (
            "tests/contract/test_expected.py::test_a_topic_of_which_nothing_is_visible_ends_with_0[asyncio-sim-encrypted]",
        ),
    ),
    Mutant(
        "conditional appends of one turn gathered into one frame",
        "walsvc/service/client/filling.py",
        "            and not entry.labels.alone\n",
        "",
        ("tests/service/test_expected.py::test_plain_appends_of_the_same_turn_stay_before_and_behind",),
    ),
    Mutant(
        "keys of records that truncate_after has cut are remembered",
        "walsvc/log/extent/cutting.py",
        "    metadata.keys.cut(lsn)\n",
        "",
        ("tests/contract/test_dedupe.py::test_truncate_after_forgets_what_it_cuts[asyncio-sim-encrypted]",),
    ),
    Mutant(
        "callers' keys left out of the snapshot",
        "walsvc/format/meta.py",
        "        if len(self.keys):\n",
        "        if False:\n",
        ("tests/contract/test_dedupe.py::test_keys_survive_reopening_rotation_and_truncate_before[asyncio-sim]",),
    ),
    Mutant(
        "a repeat answered as durable before the first is",
        "walsvc/log/commit/conditions.py",
        "if wait.done() or mode is not Strict:",
        "if True:",
        ("tests/contract/test_dedupe.py::test_repeats_in_flight_wait_for_the_first[asyncio-sim]",),
    ),
]

BACKWARDS = [
    Mutant(
        "reading backwards gives what a cut has taken away",
        "walsvc/log/read/backward.py",
        "        if cuts.turns != turns:\n",
        "        if False:\n",
        (
            "tests/contract/test_reverse.py"
            "::test_what_is_cut_off_meanwhile_is_left_out_and_so_is_what_takes_its_place[asyncio-sim]",
        ),
    ),
    Mutant(
        "reading backwards forgets the oldest of a stretch that is too large",
        "walsvc/log/read/backward.py",
        "                begin, refusal = kept[0].lsn, None\n",
        "                refusal = None\n",
        (
            "tests/contract/test_reverse.py::test_a_stretch_that_does_not_fit_in_memory_is_read_in_pieces[asyncio-sim-encrypted]",
        ),
    ),
]

TOGETHER = [
    Mutant(
        "a consumer that was closed while it read goes on",
        "walsvc/topics/hub.py",
        "                self.check(face)  # it may have been closed meanwhile\n",
        "",
        ("tests/topics/test_shared.py::test_batch_that_reads_while_its_consumer_is_closed_hears_of_it",),
    ),
    Mutant(
        "lag counts from where a consumer stood before retention",
        "walsvc/log/read/counting.py",
        "        except Truncated:\n            continue\n",
        "        except Truncated:\n            raise\n",
        ("tests/topics/test_shared.py::test_lag_is_told_though_retention_drops_what_was_being_counted",),
    ),
    Mutant(
        "a transaction leaves out its acknowledgements",
        "walsvc/topics/transaction.py",
        "joining=together(joinings) if joinings else None,",
        "joining=None,",
        ("tests/contract/test_transactions.py::test_a_delivery_is_done_with_what_was_made_of_it[asyncio-sim]",),
    ),
    Mutant(
        "a transaction asks for none of its conditions",
        "walsvc/log/commit/accepting.py",
        "        for topic, lsn in entry.conditions:\n",
        "        for topic, lsn in ():\n",
        (
            "tests/contract/test_transactions.py"
            "::test_a_condition_that_does_not_hold_writes_nothing[asyncio-sim-encrypted]",
        ),
    ),
]

CRASHED_QUEUES = ("tests/crash/test_queues.py::test_power_cuts_keep_what_workers_were_told",)
QUEUES = [
    Mutant(
        "workers that wait at once each read on",
        "walsvc/topics/ahead.py",
        "            if turns != self._turns or following != self.following:\n                return None\n",
        "            following = self.following\n",
        (
            "tests/topics/test_shared_given_up.py::test_workers_that_wait_at_once_read_no_more_than_they_need",
            "tests/topics/test_shared_given_up.py"
            "::test_acknowledgements_from_before_a_restart_that_come_at_once_all_count",
        ),
    ),
    Mutant(
        "what joins an append's group is kept in memory only",
        "walsvc/log/commit/accepting.py",
        "        self._metadata.apply(change)\n        merge(group.metadata.joined, change)\n        joining.accepted()",
        "        self._metadata.apply(change)\n        joining.accepted()",
        CRASHED_QUEUES,
    ),
    Mutant(
        "what consumers have done left out of the snapshot",
        "walsvc/format/meta.py",
        "        if queues := self.queues.encode():\n",
        "        if (queues := self.queues.encode()) and False:\n",
        CRASHED_QUEUES,
    ),
    Mutant(
        "a count of deliveries lost with every crash",
        "walsvc/topics/hub.py",
        """            return {KEY: {self.key: {"rows": b"".join(rows)}}}

        try:
            await self.writer.core.changes.join(change)
""",
        """            return {KEY: {self.key: {"rows": b"".join(rows)}}}

        try:
            change()
""",
        ("tests/topics/test_shared.py::test_counts_of_deliveries_survive_a_crash_but_for_the_one_under_way",),
    ),
    Mutant(
        "the deadlines of what is done are kept until they come",
        "walsvc/topics/leases.py",
        "        if len(self._deadlines) > 2 * self.out + ENDED_MAX:\n",
        "        if False:\n",
        (
            "tests/topics/test_leases.py::test_deadlines_of_what_is_done_are_forgotten_long_before_they_come_whatever_a_slow_worker_holds",
        ),
    ),
    Mutant(
        "an acknowledgement counts though another worker has the record",
        "walsvc/topics/acking.py",
        "            if not lease.done and not self._hub.leases.owns(lease):\n",
        "            if False:\n",
        (
            "tests/topics/test_shared.py::test_record_whose_lease_ran_out_goes_to_another_and_the_first_one_is_told[sim]",
        ),
    ),
    Mutant(
        "a record that is acknowledged twice at once counts twice",
        "walsvc/topics/acking.py",
        "        self._leases = list(dict.fromkeys(leases))  # a record counts once\n",
        "        self._leases = leases\n",
        ("tests/topics/test_shared.py::test_delivery_that_is_acknowledged_twice_at_once_is_one_record_less[sim]",),
    ),
    Mutant(
        "a client whose delivery is lost takes others' acknowledgements with it",
        "walsvc/service/client/acks.py",
        "        elif len(some) > 1 and isinstance(error, (LeaseLost, BadOption)):\n",
        "        elif False:\n",
        ("tests/service/test_together.py::test_delivery_that_is_lost_fails_its_own_caller_only",),
    ),
    Mutant(
        "records go out ahead though others wait for them",
        "walsvc/topics/supply.py",
        "        return not self._callers\n",
        "        return True\n",
        ("tests/service/test_prefetch.py::test_nothing_goes_out_ahead_while_a_caller_waits",),
    ),
    Mutant(
        "what no caller took counts as an attempt",
        "walsvc/service/client/shared.py",
        "        self._stock.give_back()\n",
        "        self._stock.forget()\n",
        ("tests/service/test_prefetch.py::test_what_has_come_goes_back_at_the_end_and_was_no_attempt",),
    ),
    Mutant(
        "callers of which one has its record queue up anew",
        "walsvc/topics/supply.py",
        "        if not place.number:\n",
        "        if True:\n",
        ("tests/service/test_together.py::test_callers_get_records_in_the_order_in_which_they_asked",),
    ),
]

REPLICATED = [
    Mutant(
        "appends go on behind half a batch that cannot be removed",
        "walsvc/log/commit/batch.py",
        "            core.queue.hold(1)  # the turn of the batch ends with its task\n",
        "",
        ("tests/crash/test_shortages.py::test_segments_of_a_given_up_batch_that_cannot_be_removed_end_no_log",),
    ),
    Mutant(
        "appends go on while the intent of a cut is there",
        "walsvc/log/extent/clearing.py",
        "        await insist(call, partial(self._refused, first, text))\n",
        "        with __import__('contextlib').suppress(OSError):\n            await call()\n",
        ("tests/crash/test_shortages.py::test_cut_whose_segments_cannot_be_removed_goes_on_by_itself_later",),
    ),
    Mutant(
        "whoever waits for nats-py waits for it alone",
        "walsvc/engines/jetstream/stream.py",
        "await within(None, once())",
        "await once()",
        ("tests/engines/test_js_cancelled.py::test_cancelled_wait_for_the_servers_ends_though_the_client_swallows_it",),
    ),
    Mutant(
        "waiting for the replica counts records only",
        "walsvc/api.py",
        "replicated.wait_changes(self.writer.core.catalog.changed)",
        "replicated.wait(0)",
        ("tests/log/test_replicated.py::test_waiting_for_a_replica_covers_changes_without_an_lsn",),
    ),
    Mutant(
        "the replica counts as far as before truncate_after",
        "walsvc/log/commit/replicated.py",
        "        self.lsn, self.mark = min(self.lsn, lsn), BEGINNING\n",
        "        self.lsn = min(self.lsn, lsn)\n",
        ("tests/log/test_replicated.py::test_truncate_after_moves_those_who_wait_to_the_state_behind_it",),
    ),
    Mutant(
        "a segment that gave way to another of its name counts as that one",
        "walsvc/log/commit/catalog.py",
        "        return Mark(self.replacements, *self.place)\n",
        "        return Mark(0, *self.place)\n",
        ("tests/log/test_replicated.py::test_segment_full_of_changes_that_gave_way_to_another_is_behind_it",),
    ),
    Mutant(
        "flush looks at records only",
        "walsvc/log/commit/ending.py",
        "        await settled\n",
        "",
        ("tests/log/test_replicated.py::test_flush_covers_acknowledgements_that_wait_for_the_next_commit",),
        also=(("walsvc/log/commit/ending.py", "        core.pipeline.settle(settled)\n", ""),),
    ),
]

USERS = [  # of what users' crash tests stand on
    Mutant(
        "a check sees what the world learned after the power cut",
        "walsvc/testing/machine.py",
        "copy.witness = list(self.witness)",
        "copy.witness = self.witness",
        ("tests/package/test_testing.py::test_program_that_is_right_passes_every_cut_and_fault",),
    ),
    Mutant(
        "a power cut loses nothing",
        "walsvc/testing/machine.py",
        "list(device.crash_states(limit))",
        "list(device.crash_states(limit))[1:2]",
        (
            "tests/package/test_testing.py::test_relaxed_append_told_as_stored_is_found_at_its_first_cut_and_tried_again_by_name",
        ),
    ),
    Mutant(
        "the sync of another system leaves the data in the device's cache",
        "walsvc/disk/system.py",
        "    if FULL_SYNC is None:\n        os.fsync(file)",
        "    if True:\n        os.fsync(file)",
        ("tests/disk/test_system.py::test_full_sync_of_macos_is_the_one_that_is_used[sync_data]",),
    ),
]

GOING = [  # topics that go
    Mutant(
        "records of a deleted topic are shown",
        "walsvc/log/read/hiding.py",
        "    gone = topics.gone_of(numbers or ())\n",
        "    gone = set[int]()\n",
        (DELETING + "test_deleted_topic_is_hidden_from_all_reading_and_its_name_begins_anew[sim]",),
    ),
    Mutant(
        "a topic's number is given twice once the last one has gone",
        "walsvc/format/topics.py",
        '"given": self.given, ',
        '"given": max(self.names, default=0), ',
        ("tests/format/test_topics.py::test_without_a_topic_that_has_gone_the_keys_are_those_of_every_version",),
    ),
    Mutant(
        "a name that was given again in the group of the deletion takes the number of the first",
        "walsvc/format/topics.py",
        "            while given + 1 in going:\n                given += 1\n            if number",
        "            if number",
        (DELETING + "test_deletion_and_several_lives_of_a_name_in_one_group_survive_a_crash",),
    ),
    Mutant(
        "a topic goes by itself though it has a consumer",
        "walsvc/log/extent/leaving.py",
        " or metadata.positions.of_topic(number):",
        ":",
        (DELETING + "test_topic_of_which_nothing_is_left_goes_by_itself[sim-encrypted]",),
    ),
    Mutant(
        "a topic goes by itself though a repeated append would be written twice",
        "walsvc/log/extent/leaving.py",
        "    return not core.queue.conditions.remembers(number)\n",
        "    return True\n",
        (DELETING + "test_topic_of_which_nothing_is_left_goes_by_itself[sim-encrypted]",),
    ),
    Mutant(
        "a record of the filling group does not keep its topic",
        "walsvc/log/extent/leaving.py",
        "core.placement.group.last_of(number) or metadata",
        "metadata",
        (DELETING + "test_record_that_is_only_accepted_keeps_its_topic",),
    ),
    Mutant(
        "a topic is deleted below a consumer that is open",
        "walsvc/topics/deleting.py",
        "        refuse_used(core, found, name)\n",
        "",
        (DELETING + "test_deleting_frees_consumers_keys_and_marks_and_refuses_while_one_is_open[sim-encrypted]",),
    ),
    Mutant(
        "callers' keys of a deleted topic are remembered",
        "walsvc/format/meta.py",
        "            self.keys.forget(number)\n",
        "            pass\n",
        ("tests/format/test_topics.py::test_changes_one_by_one_merged_and_from_a_snapshot_give_the_same_topics",),
    ),
    Mutant(
        "a follower waits for the topic that was deleted",
        "walsvc/log/read/sources.py",
        "if self._cursor is not None and number != self._number:",
        "if False:",
        (DELETING + "test_follower_of_the_name_goes_on_with_what_is_made_under_it[sim-encrypted]",),
    ),
    Mutant(
        "a reader shows what it has read ahead of a deletion",
        "walsvc/log/read/cuts.py",
        '        """A topic is deleted."""\n        self.turns += 1\n',
        '        """A topic is deleted."""\n',
        (DELETING + "test_readers_that_have_read_ahead_show_nothing_of_it[sim]",),
    ),
    Mutant(
        "a deletion that is repeated takes the topic that was made since",
        "walsvc/topics/deleting.py",
        "        if number is not None and found != number:\n",
        "        if False:\n",
        (
            "tests/service/test_deleting.py"
            "::test_deletion_whose_answer_was_lost_is_repeated_and_spares_a_topic_that_was_made_since[asyncio]",
        ),
    ),
    Mutant(
        "compaction drops the same records of a deleted topic again and again",
        "walsvc/log/read/hiding.py",
        "    return hidden - dropped_rows(columns)\n",
        "    return hidden\n",
        (DELETING + "test_compaction_gives_the_room_back[sim]",),
    ),
    Mutant(
        "truncate_after gives a topic the counts of another one",
        "walsvc/format/topics.py",
        "        sums = [then.sums_of(number) for number in self.names]\n",
        "        sums = [then.sums_of(each) for each, _ in enumerate(self.names, 1)]\n",
        (DELETING + "test_truncate_after_does_not_bring_a_topic_back[sim]",),
    ),
]

ENTRIES = [
    Mutant(
        "batch: a record that is streamed with labels of its own may lose them",
        "walsvc/log/commit/batch.py",
        "        for index, labels in chunk.labels.items():\n",
        "        for index, labels in [*chunk.labels.items()][1:]:\n",
        ("tests/crash/test_batches.py::test_entries_keep_their_labels_or_are_not_there",),
    ),
    Mutant(
        "commit: a change that is nothing may begin a segment",
        "walsvc/log/commit/changes.py",
        "        if change and not self._put(change):",
        "        if not self._put(change):",
        ("tests/log/test_waiting.py::test_change_that_is_nothing_begins_no_segment_that_nobody_writes",),
    ),
    Mutant(
        "log: a spare is prepared while a segment is being begun, whose file may have its name",
        "walsvc/log/extent/steps.py",
        "        if core.pipeline.rotation.busy:",
        "        if False:",
        ("tests/log/test_spares.py::test_file_of_a_segment_that_is_being_begun_is_not_taken_for_the_next_spare",),
    ),
    Mutant(
        "commit: who waits for room behind a failure waits for ever",
        "walsvc/log/commit/waits.py",
        "        if self._health.failure is not None:\n            wait.set_result(None)\n        return wait\n",
        "        return wait\n",
        (
            "tests/log/test_waiting.py::test_change_that_waits_for_a_segment_that_is_begun_is_told_that_the_log_has_failed",
        ),
    ),
    Mutant(
        "log: what is lent takes the name of an old segment, which keeps its length",
        "walsvc/log/commit/spares.py",
        "            if name in self.recyclable:",
        "            if False:",
        ("tests/log/test_spares.py::test_prepared_file_is_as_long_as_it_is_said_to_be_whatever_was_refused_before",),
    ),
    Mutant(
        "commit: a log that is being closed accepts what waits behind its seal",
        "walsvc/log/commit/health.py",
        "        self.draining = False\n        self.closed = Closed(",
        "        self.closed = Closed(",
        ("tests/log/test_waiting.py::test_nothing_is_accepted_behind_a_seal_when_the_log_is_closed_meanwhile",),
    ),
    Mutant(
        "double-write: a stale image that brings its own chain is restored",
        "walsvc/log/recover/overlay.py",
        "    if slot.generation < own.chain.generation:\n",
        "    if False:\n",
        (DOUBLE_WRITE + "test_seal_of_a_batch_that_was_given_up_does_not_come_back_over_what_is_in_its_place",),
    ),
    Mutant(
        "log: compaction writes a group of its own beside a cut",
        "walsvc/log/extent/compaction.py",
        "    await core.changes.join(dict)\n",
        "    await core.changes.write({})\n",
        (
            "tests/crash/test_truncation.py::test_compaction_that_is_called_during_a_cut_writes_nothing_into_what_is_cut",
        ),
    ),
    Mutant(
        "log: a prepared file that is taken before its replacement begins counts as left over",
        "walsvc/log/commit/spares.py",
        "self.spare is None and not taken  #",
        "self.spare is None  #",
        ("tests/crash/test_everyone.py::test_all_calls_beside_each_other_are_answered_and_lose_nothing",),
    ),
    Mutant(
        "log: a topic's truncation looks at the end before its turn comes",
        "walsvc/log/extent/hider.py",
        "            async with self._hidings.preparing:\n                check_before(self._core, lsn)\n",
        "            check_before(self._core, lsn)\n            async with self._hidings.preparing:\n",
        ("tests/topics/test_turns.py::test_hiding_that_waited_for_a_cut_waits_for_no_record_that_is_gone",),
    ),
    Mutant(
        "log: a prepared file that was removed is begun",
        "walsvc/log/commit/spares.py",
        "        if spare is None or spare.file_bytes < need or self._disk.spoilt(spare.file):",
        "        if spare is None or spare.file_bytes < need:",
        ("tests/log/test_spares.py::test_prepared_file_that_somebody_removes_is_no_failure_whoever_wants_it",),
    ),
    Mutant(
        "commit: an append that waits for pending bytes hears of a shortage",
        "walsvc/log/commit/queue.py",
        "            if no_space is not None and not self._waits_for_others(entry):\n                raise no_space\n            return False",
        "            if no_space is not None:\n                raise no_space\n            return False",
        ("tests/log/test_spares.py::test_append_that_waits_for_pending_bytes_hears_of_no_shortage",),
    ),
    Mutant(
        "commit: a log that has failed takes a group of metadata",
        "walsvc/log/commit/changes.py",
        "        self._health.raise_failure()\n        if self._placement.batch_lsn:",
        "        if self._placement.batch_lsn:",
        ("tests/log/test_waiting.py::test_failed_log_takes_no_group_of_metadata",),
    ),
    Mutant(
        "read: a reader knows no segment that was cut away while it looked at the next one",
        "walsvc/log/read/reader.py",
        "            if isinstance(gone, KeyError):",
        "            if False:",
        ("tests/log/test_cuts.py::test_reader_at_a_segment_that_is_cut_away_with_the_one_before_it_ends_there",),
    ),
    Mutant(
        "topics: the end of a consumer waits for room for its dead letters",
        "walsvc/topics/dead.py",
        "            if not hub.holders:",
        "            if False:",
        ("tests/topics/test_shared_short.py::test_closing_waits_for_no_dead_letter_that_finds_no_room",),
    ),
    Mutant(
        "topics: a delivery that ends while the log takes nothing is forgotten",
        "walsvc/topics/hub.py",
        "        except (NoSpace, PathError):",
        "        except NoSpace:",
        ("tests/topics/test_shared_short.py::test_delivery_that_ends_while_the_log_takes_nothing_is_not_forgotten",),
    ),
    Mutant(
        "fronts: a work queue with a lease is opened as a group",
        "walsvc/service/fronts/redis/members.py",
        '        return kept_options(self._log(), topic.name, name).get("lease") is not None\n',
        "        return False\n",
        (f"{BESIDE}test_work_queue_with_a_lease_is_no_group_whether_it_is_open_or_not",),
    ),
    Mutant(
        "fronts: groups stay open when the last client of Redis has left",
        "walsvc/service/fronts/redis/client.py",
        "            if not members.clients:\n",
        "            if members.clients < 0:\n",
        (f"{BESIDE}test_group_goes_with_its_topic_once_the_last_client_of_redis_has_left",),
    ),
    Mutant(
        "topics: over the service whoever had a record acknowledges it for whoever took it over",
        "walsvc/topics/hub.py",
        "        if lease.holder not in (None, worker) if counted else",
        "        if False if counted else",
        (f"{BESIDE}test_worker_of_walsvc_and_one_of_redis_share_a_group",),
    ),
    Mutant(
        "fronts: a client over HTTP that reads no answers is answered on and on",
        "walsvc/service/fronts/http/brief.py",
        "        await writer.drain()\n",
        "",
        (
            "tests/service/fronts/test_brief.py::test_client_that_takes_no_answers_has_one_append_after_the_other_and_no_more",
        ),
    ),
    Mutant(
        "service: nobody looks at the labels that a client gives the records of a batch",
        "walsvc/service/server/parts.py",
        "    if isinstance(item, Packed):\n",
        "    if item is None:\n",
        ("tests/service/test_entries.py::test_bad_labels_end_the_batch_and_nothing_of_it_is_written",),
    ),
]

MUTANTS = [
    *GOING,
    *CONDITIONS,
    *QUEUES,
    *BACKWARDS,
    *TOGETHER,
    *ENTRIES,
    *ORDER,
    *CHECKS,
    *RECOVERY,
    *FAILING,
    *SHARING,
    *SECRECY,
    *PURGING,
    *REWRITING,
    *READING,
    *HISTORY,
    *PLACES,
    *REACHING,
    *REPLICATED,
    *USERS,
]
