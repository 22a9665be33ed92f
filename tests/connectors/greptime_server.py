"""A GreptimeDB for tests: the gRPC service that the client uses, with upserts, in memory.

It knows only the calls of the client: row inserts, with their messages of `greptime.v1`, and the health check.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_OPTIONAL, _REPEATED = _Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED
STRING, INT32, INT64, UINT32, DOUBLE, BOOL, BYTES = (
    f"TYPE_{name}" for name in ("STRING", "INT32", "INT64", "UINT32", "DOUBLE", "BOOL", "BYTES")
)

# message -> [(field, number, scalar type or message, repeated, oneof)]
_MESSAGES: Final[dict[str, list[tuple[str, int, str, bool, str]]]] = {
    "Basic": [("username", 1, STRING, False, ""), ("password", 2, STRING, False, "")],
    "AuthHeader": [("basic", 1, "Basic", False, "auth_scheme")],
    "RequestHeader": [("authorization", 3, "AuthHeader", False, ""), ("dbname", 4, STRING, False, "")],
    "ColumnSchema": [
        ("column_name", 1, STRING, False, ""),
        ("datatype", 2, INT32, False, ""),
        ("semantic_type", 3, INT32, False, ""),
    ],
    "Value": [
        ("i64_value", 4, INT64, False, "value_data"),
        ("f64_value", 10, DOUBLE, False, "value_data"),
        ("bool_value", 11, BOOL, False, "value_data"),
        ("binary_value", 12, BYTES, False, "value_data"),
        ("string_value", 13, STRING, False, "value_data"),
        ("timestamp_microsecond_value", 18, INT64, False, "value_data"),
    ],
    "Row": [("values", 1, "Value", True, "")],
    "Rows": [("schema", 1, "ColumnSchema", True, ""), ("rows", 2, "Row", True, "")],
    "RowInsertRequest": [("table_name", 1, STRING, False, ""), ("rows", 2, "Rows", False, "")],
    "RowInsertRequests": [("inserts", 1, "RowInsertRequest", True, "")],
    "GreptimeRequest": [
        ("header", 1, "RequestHeader", False, ""),
        ("row_inserts", 6, "RowInsertRequests", False, "request"),
    ],
    "AffectedRows": [("value", 1, UINT32, False, "")],
    "GreptimeResponse": [("affected_rows", 2, "AffectedRows", False, "response")],
}
_TAG, _FIELD, _TIMESTAMP = range(3)
_FIELD_OF_TYPE: Final = {  # a column's datatype -> the field of Value that holds it
    0: "bool_value",
    4: "i64_value",
    10: "f64_value",
    11: "binary_value",
    12: "string_value",
    17: "timestamp_microsecond_value",
}


def _classes() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="greptime_test.proto", package="greptime.v1", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        oneofs: list[str] = []
        for field_name, number, kind, repeated, oneof in fields:
            field = message.field.add(name=field_name, number=number, label=_REPEATED if repeated else _OPTIONAL)
            if kind in _MESSAGES:
                field.type = _Field.TYPE_MESSAGE
                field.type_name = f".greptime.v1.{kind}"
            else:
                field.type = _Field.Type.Value(kind)
            if oneof:
                if oneof not in oneofs:
                    oneofs.append(oneof)
                    message.oneof_decl.add(name=oneof)
                field.oneof_index = oneofs.index(oneof)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = [pool.FindMessageTypeByName(f"greptime.v1.{n}") for n in ("GreptimeRequest", "GreptimeResponse")]
    request, response = (message_factory.GetMessageClass(d) for d in found)
    return request, response


REQUEST, RESPONSE = _classes()


if TYPE_CHECKING:
    Handler = grpc.GenericRpcHandler[Any, Any]
else:
    Handler = grpc.GenericRpcHandler


class GreptimeServer(Handler):
    """Tables in memory: `tables[table][key]` is a row as {column: value}; the key is its tags and its time.

    `fail(code, times)` makes the next inserts fail; `refuse` holds the (column, value) pairs that no row may have. Each
    insert waits for the next of `delays`, or for `delay_s` if none is left, in seconds. `basic` is the (username,
    password) that clients must give.
    """

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[object, ...], dict[str, object]]] = {}
        self.schemas: dict[str, dict[str, tuple[int, int]]] = {}
        self.refuse: set[tuple[str, object]] = set()
        self.basic: tuple[str, str] | None = None
        self.databases: set[str] = set()
        self.delay_s = 0.0
        self.delays: list[float] = []
        self.inserts = 0
        self._failures: list[grpc.StatusCode] = []
        self._start(0)

    def _start(self, port: int) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def fail(self, code: grpc.StatusCode, times: int) -> None:
        self._failures = [code] * times

    def stop(self) -> None:
        self._server.stop(0).wait()

    def restart(self) -> None:
        """Start again on the same port."""
        self._start(self.port)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        if details.method == "/greptime.v1.GreptimeDatabase/Handle":
            return grpc.unary_unary_rpc_method_handler(self._handle, REQUEST.FromString, RESPONSE.SerializeToString)
        if details.method == "/greptime.v1.HealthCheck/HealthCheck":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
        return None

    def _handle(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.inserts += 1
        time.sleep(self.delays.pop(0) if self.delays else self.delay_s)
        basic = request.header.authorization.basic
        if self.basic is not None and (basic.username, basic.password) != self.basic:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown user")
        if self._failures:
            context.abort(self._failures.pop(), "told to fail")
        self.databases.add(request.header.dbname)
        taken = []
        for insert in request.row_inserts.inserts:
            schema = {c.column_name: (c.datatype, c.semantic_type) for c in insert.rows.schema}
            if self.schemas.setdefault(insert.table_name, schema) != schema:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "another schema")
            for row in insert.rows.rows:
                values = self._values(schema, row, context)
                taken.append((insert.table_name, values))
        for table, values in taken:
            schema = self.schemas[table]
            key = tuple(v for n, v in values.items() if schema[n][1] != _FIELD)
            self.tables.setdefault(table, {})[key] = values
        response = RESPONSE()
        response.affected_rows.value = len(taken)
        return response

    def _values(self, schema: dict[str, tuple[int, int]], row: Any, context: grpc.ServicerContext) -> dict[str, object]:
        if len(row.values) != len(schema):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "another number of columns")
        out: dict[str, object] = {}
        for (name, (datatype, semantic)), value in zip(schema.items(), row.values, strict=True):
            field = value.WhichOneof("value_data")
            if (field is None and semantic == _TIMESTAMP) or field not in (None, _FIELD_OF_TYPE[datatype]):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"column {name}")
            out[name] = getattr(value, field) if field else None
            if (name, out[name]) in self.refuse:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"column {name} is refused")
        return out
