"""Trees of tokens: what sequences begin with in common stands once, and stays together."""

from __future__ import annotations

import pytest

pytest.importorskip("numpy")

from reagent_env.trainers.token_tree import (
    common,
    token_tree,
    tree_micro_batches,
    tree_shares,
)


def test_what_sequences_share_stands_once_and_each_finds_its_own_path() -> None:
    sequences = [[5, 6, 8, 9], [7], [5, 6, 7], [5, 6, 8, 9, 1], [5, 6, 8, 9]]
    tree = token_tree(sequences)
    assert len(tree.ids) == 7  # 5 6 7, 8 9, 1, and 7 by itself
    assert [[tree.ids[place] for place in path] for path in tree.paths] == sequences
    assert [[tree.positions[place] for place in path] for path in tree.paths] == [
        list(range(len(one))) for one in sequences
    ]
    assert sum(len(one) - same for one, same in zip(sequences, tree.shared, strict=True)) == 7
    assert tree.shared[4] == 4  # the same as another: nothing of its own


@pytest.mark.parametrize("same", [0, 1, 7, 63, 64, 200])
def test_a_common_beginning_is_found_to_the_token(same: int) -> None:
    one, other = [4] * same + [1, 2, 3], [4] * same + [2, 2, 3]
    assert common(one, other) == same
    assert common(one, one[:same]) == same
    assert common(one, one) == same + 3


def test_micro_batches_hold_what_begins_alike_up_to_the_tokens_computed() -> None:
    first, second = [1] * 40, [2] * 40
    sequences = [first + [3] * 8, second + [3] * 8, first + [4] * 8, second + [4] * 8]
    # 48 tokens, then 8 of its own and 40 / 8 read again: 61.
    assert list(tree_micro_batches(sequences, range(4), 61)) == [[0, 2], [1, 3]]
    assert list(tree_micro_batches(sequences, range(4), 60)) == [[0], [2], [1], [3]]
    assert list(tree_micro_batches(sequences, range(4), 5)) == [[0], [2], [1], [3]]
    assert list(tree_micro_batches(sequences, [3, 0], 1_000)) == [[0, 3]]
    assert list(tree_micro_batches(sequences, [], 1_000)) == []


def test_processes_get_as_much_each_and_groups_stay_whole() -> None:
    groups = [[[group] * 50 + [9, member] for member in range(4)] for group in range(4)]
    sequences = [one for group in groups for one in group]
    dealt = tree_shares(sequences, range(16), 2)
    assert dealt == [list(range(8)), list(range(8, 16))]
    assert tree_shares([[1, 2, 3]], [0], 2) in ([[0], []], [[], [0]])
    in_three = tree_shares(sequences, range(16), 3)
    assert sorted(index for share in in_three for index in share) == list(range(16))
