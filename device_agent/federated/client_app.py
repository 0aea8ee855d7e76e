"""The device's part as a Flower ``ClientApp``: messages in, messages out."""

from collections.abc import Mapping
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from device_agent.federated.participant import Participant, Received, Update
from protocol.errors import MalformedMessage
from protocol.federation import ARRAYS, CONFIG, EXAMPLES, METRICS, Floats, Round, unpacked

Metrics = dict[str, int | float | list[int] | list[float]]


def client_app(participant: Participant) -> ClientApp:
    """An app whose training gives updates; asked to evaluate, it keeps the weights and scores them.

    A refusal leaves it as the ``DeviceError`` or ``Fault`` that it is.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        asked, weights = _read(message, participant)
        update = participant.train(asked, weights)
        arrays = {name: Array(one) for name, one in participant.wire(asked, update).items()}
        content = RecordDict(
            {ARRAYS: ArrayRecord(arrays), METRICS: MetricRecord(_told(asked, update))}
        )
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        asked, weights = _read(message, participant)
        received = participant.receive(asked, weights)
        content = RecordDict({METRICS: MetricRecord(_scored(asked, received))})
        return Message(content, reply_to=message)

    return app


def asked_of(message: Message) -> Round:
    """What a message asks for. Raises MalformedMessage."""
    config = message.content.get(CONFIG)
    if not isinstance(config, ConfigRecord):
        raise MalformedMessage(reason="the message has no configuration")
    return Round.from_config({"proximal-mu": 0.0, "kept": 0.0, **config})


def _read(message: Message, participant: Participant) -> tuple[Round, Mapping[str, Floats]]:
    """What is asked for, and the weights; the kit is checked first, as shapes go by it."""
    asked = asked_of(message)
    participant.check(asked)
    record = message.content.get(ARRAYS)
    if not isinstance(record, ArrayRecord):
        raise MalformedMessage(reason="the message has no weights")
    return asked, unpacked(arrays_in(record), participant.shapes)


def arrays_in(record: ArrayRecord) -> dict[str, Any]:
    """The arrays of a record. Raises MalformedMessage when their bytes are none."""
    try:
        return {name: array.numpy() for name, array in record.items()}
    except (TypeError, ValueError, EOFError) as error:
        raise MalformedMessage(reason=f"an array cannot be read: {error}") from error


def _told(asked: Round, update: Update) -> Metrics:
    """Where the round is private, figures of a person's text stay here."""
    if asked.private:
        return {EXAMPLES: 1}
    return {EXAMPLES: update.tokens, "loss": update.loss, "held-out": update.held_out}


def _scored(asked: Round, received: Received) -> Metrics:
    if asked.private:
        return {EXAMPLES: 1}
    return {EXAMPLES: received.tokens, "frozen": received.base, "shared": received.shared}
