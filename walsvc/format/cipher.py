"""Encryption of a segment's groups: AES-256-GCM (NIST SP 800-38D), with a key of its own for each segment. Pure.

Keys: from a key of the ring and the segment's random salt, HKDF-SHA256 (RFC 5869) derives two values:

    segment key  32  info = "walsvc segment key" and bytes 12 to 119 of the segment header
    key_check    16  info = "walsvc key check" and the key's id; stands in the segment header

The info binds the key to every field of the header before the salt (log id, ordinal, first LSN, ...): a group that is moved
to another log or segment, or that stands under an altered header, does not authenticate. key_check commits to the ring's
key (GCM alone does not), so a wrong key is told from damage before anything is decrypted.

A group on disk: header 128, then, in the place of payload area, index and metadata and as long as they are, their
ciphertext, then the tag of 16 bytes, then zero padding. The nonce is random for every write of a group. Associated data are
bytes 0 to 107 of the group header: magic, flags, place, LSNs, generation, times, lengths, previous_crc, nonce. The CRCs
are those of the bytes on disk, so whoever has no key can still check, copy and chain groups. In an encrypted segment a
group is valid only if it also authenticates, and rule 6 of walsvc.format.group is checked after that. What has its CRCs
right and does not authenticate was altered on purpose: Corruption, never a torn tail.

Nonces of 96 random bits repeat within one key with a probability below n*n / 2**97 after n groups: below 2**-47 for the
16 million groups of the largest segment in the smallest blocks that are usual.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from walsvc.checksum import crc32c
from walsvc.errors import Corruption, MissingKey, WrongKey
from walsvc.format.group import (
    CRCS_OFFSET,
    GROUP_FIELDS,
    GROUP_HEADER_BYTES,
    GROUP_MAGIC,
    HEADER_CRC,
    TAG_BYTES,
    BadGroup,
    Bytes,
    GroupHeader,
    check_group_lengths,
)
from walsvc.format.segment import AES_256_GCM, ENCRYPTED, SALT_OFFSET, SegmentHeader, encode_segment_header
from walsvc.keyring import Blind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    from walsvc.keyring import KeyRing, Keys, Secret

NONCE_BYTES = 12
SALT_BYTES = 32
KEY_INFO = b"walsvc segment key"
CHECK_INFO = b"walsvc key check"
BOUND_FROM = 12  # of the segment header: behind magic and version, which a later version may raise


class SegmentCipher:
    """Seals and opens the groups of one segment.

    Attributes:
        key_id: of the ring's key that it was derived from.
    """

    __slots__ = ("_aead", "_decrypt_into", "_encrypt_into", "key_id")

    def __init__(self, aead: AESGCM, key_id: str) -> None:
        self._aead = aead
        self._encrypt_into = getattr(aead, "encrypt_into", None)  # newer than the oldest cryptography that we take
        self._decrypt_into = getattr(aead, "decrypt_into", None)
        self.key_id: str = key_id

    def __repr__(self) -> str:
        return f"SegmentCipher(key_id={self.key_id!r})"

    def seal_group(self, view: memoryview, header: GroupHeader, payloads: Sequence[Bytes], rest: bytes) -> int:
        """Like encode_group, encrypted under a fresh nonce; header.group_bytes has room for the tag."""
        header = header._replace(nonce=os.urandom(NONCE_BYTES))
        fields = GROUP_FIELDS.pack(GROUP_MAGIC, *header[:16], 0, 0, 0, 0)
        plain = b"".join((*payloads, rest))
        start, middle = GROUP_HEADER_BYTES, GROUP_HEADER_BYTES + header.payload_bytes
        end = start + len(plain) + TAG_BYTES
        if self._encrypt_into is not None:
            self._encrypt_into(header.nonce, plain, fields[:CRCS_OFFSET], view[start:end])
        else:
            view[start:end] = self._aead.encrypt(header.nonce, plain, fields[:CRCS_OFFSET])
        view[end:] = bytes(len(view) - end)
        fields = GROUP_FIELDS.pack(
            GROUP_MAGIC, *header[:16], crc32c(view[start:middle]), crc32c(view[middle:]), *header[18:20]
        )
        header_crc: int = crc32c(fields)
        view[:GROUP_HEADER_BYTES] = fields + HEADER_CRC.pack(header_crc)
        return header_crc

    def open_group(self, header: GroupHeader, data: Bytes, at: int = 0) -> Bytes:
        """The group at `at`, whose CRCs are right, as it would stand in a plain segment, without padding; a copy.

        Raises:
            BadGroup: it does not authenticate, or its index contradicts its lengths.
        """
        from cryptography.exceptions import InvalidTag

        start = at + GROUP_HEADER_BYTES
        sealed = memoryview(data)[start : start + header.body_bytes + TAG_BYTES]
        head = bytes(data[at:start])
        opened = memoryview(bytearray(GROUP_HEADER_BYTES + header.body_bytes))
        opened[:GROUP_HEADER_BYTES] = head
        try:
            if self._decrypt_into is not None:
                self._decrypt_into(header.nonce, sealed, head[:CRCS_OFFSET], opened[GROUP_HEADER_BYTES:])
            else:
                opened[GROUP_HEADER_BYTES:] = self._aead.decrypt(header.nonce, sealed, head[:CRCS_OFFSET])
        except InvalidTag:
            raise BadGroup("authentication failed: the group was altered, or moved from another place") from None
        check_group_lengths(header, opened)
        return opened


def begin_cipher(ring: KeyRing, header: SegmentHeader) -> tuple[SegmentHeader, SegmentCipher]:
    """A new segment's header with the ring's current key and a fresh salt, and the cipher that goes with it."""
    header = header._replace(
        required=header.required | ENCRYPTED,
        cipher=AES_256_GCM,
        key_id=ring.current_id.encode(),
        salt=os.urandom(SALT_BYTES),
    )
    secret = ring.key(ring.current_id)
    assert secret is not None, "the current key is in the ring"
    header = header._replace(key_check=check_of(secret, header))
    return header, derive_cipher(secret, header)


def cipher_of(ring: Keys, header: SegmentHeader, path: str | None = None) -> SegmentCipher | None:
    """The cipher of an existing segment; None: it is not encrypted, or is looked at from outside.

    Args:
        ring: the keys at hand; BLIND: only its outside matters.
        header: the segment's.
        path: for messages.

    Raises:
        MissingKey: the ring, if there is one, has no key of that id. WrongKey: it has another one under that id.
        Corruption: the segment is not encrypted, and the ring refuses that.
    """
    if isinstance(ring, Blind):
        return None
    if not header.cipher:
        if ring is not None and not ring.plain:
            raise Corruption(
                "the segment is not encrypted, and the keys say that all are",
                path=path,
                segment=header.first_lsn,
                offset=0,
                hint="if the log was plain before, open it with KeyRing(..., plain=True); else the files were changed from outside",
            )
        return None
    key_id = header.key_id.decode("utf-8", "replace")
    secret = None if ring is None else ring.key(key_id)
    if secret is None:
        had = "no keys were given" if ring is None else f"the ring has {', '.join(map(repr, ring.ids))}"
        raise MissingKey(
            f"the segment is encrypted with key {key_id!r}, and {had}",
            path=path,
            segment=header.first_lsn,
            hint="give keys=KeyRing(...) with that key; nothing was changed",
        )
    if check_of(secret, header) != header.key_check:
        raise WrongKey(
            f"the key given as {key_id!r} is not the one that the segment was encrypted with",
            path=path,
            segment=header.first_lsn,
            hint="look for the right key; nothing was changed, and nothing is damaged",
        )
    return derive_cipher(secret, header)


def derive_cipher(secret: Secret, header: SegmentHeader) -> SegmentCipher:
    """The segment's cipher. Its key lives in the library's object only."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    bound = encode_segment_header(header)[BOUND_FROM:SALT_OFFSET]
    aead = AESGCM(hkdf(32, header.salt, KEY_INFO + bound).derive(secret.reveal()))
    return SegmentCipher(aead, header.key_id.decode("utf-8", "replace"))


def check_of(secret: Secret, header: SegmentHeader) -> bytes:
    """The key_check of a segment with this key. Not secret: it stands in the header."""
    return hkdf(16, header.salt, CHECK_INFO + header.key_id).derive(secret.reveal())


def hkdf(length: int, salt: bytes, info: bytes) -> HKDF:
    """HKDF-SHA256."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length, salt, info)
