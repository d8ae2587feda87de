"""The demo's traffic: the same for a seed, and everything in it whatever its size."""

from __future__ import annotations

from typing import get_args

import pytest

from app.demo.traffic import REFERENCE, Deed, plan


@pytest.mark.parametrize(("users", "messages"), [(1, 1), (3, 2), (20, 3), (200, 5)])
def test_everything_happens_whatever_the_size(users: int, messages: int) -> None:
    planned = plan(users=users, messages=messages, seed=3)
    assert planned.messages == users * messages
    done = {step.deed for script in planned.scripts for step in script.steps()}
    assert done >= set(get_args(Deed)) - {"say", "image", "voice"}
    assert done & {"image", "voice"}


def test_a_seed_makes_a_plan_and_another_seed_another() -> None:
    assert plan(users=5, messages=3, seed=1) == plan(users=5, messages=3, seed=1)
    assert plan(users=5, messages=3, seed=1) != plan(users=5, messages=3, seed=2)


def test_every_message_can_be_told_from_every_other() -> None:
    planned = plan(users=50, messages=5, seed=1)
    made = [
        step.reference
        for script in planned.scripts
        for step in script.steps()
        if step.deed not in {"edit", "delete", "repeat", "typing"}
    ]
    assert len(made) == len(set(made))
    assert all(REFERENCE.fullmatch(reference) for reference in made)


def test_an_edit_a_deletion_and_a_repetition_follow_the_message_that_they_are_about() -> None:
    for script in plan(users=30, messages=4, seed=9).scripts:
        known: set[str] = set()
        for step in script.steps():
            if step.deed in {"edit", "delete", "repeat"}:
                assert step.reference in known
            known.add(step.reference)
