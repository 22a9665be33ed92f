import orjson
from hypothesis import given
from hypothesis import strategies as st

from connectors.dead_letters import dead_letter_record, encode_dead_letter
from operators.model import DeadLetter


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_one_line_of_json(detail: str, payload: str) -> None:
    letter = DeadLetter("t", 3, 7, "not_json", detail, payload)
    data = encode_dead_letter(letter)
    assert b"\n" not in data
    read = orjson.loads(data)
    assert (read["topic"], read["partition"], read["offset"], read["reason"]) == ("t", 3, 7, "not_json")
    assert read["detail"] == detail.encode(errors="replace").decode()
    assert read["payload"] == payload.encode(errors="replace").decode()


def test_the_id_is_in_the_header_and_the_source_partition_is_the_key() -> None:
    record = dead_letter_record(DeadLetter("llm.telemetry", 2, 41, "bad_time", "x", "{}"))
    assert record.id == record.headers["ce_id"] == "llm.telemetry/2/41"
    anew = dead_letter_record(DeadLetter("llm.telemetry", 2, 41, "bad_time", "x", "{}", "Xy3"))
    assert anew.id == "llm.telemetry/2/41@Xy3"
    assert record.key == anew.key == "llm.telemetry/2"
    assert orjson.loads(record.value)["id"] == record.id
