from types import SimpleNamespace

import grpc

from ferserve.serving.grpc_requests import CallTable

HANDLER = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)


def found(table: CallTable, method: str) -> object:
    return table.service(SimpleNamespace(method=method))


def test_methods_of_its_services_are_wrapped_and_others_taken_as_they_are():
    table = CallTable(lambda rpc, handler: (rpc, handler), ["a.Ours"])
    table.add_registered_method_handlers("a.Ours", {"Get": HANDLER})
    table.add_registered_method_handlers("a.Theirs", {"Get": HANDLER})
    table.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.Ours", {"Get": HANDLER}),))
    assert found(table, "/a.Ours/Get") == ("Get", HANDLER)
    assert found(table, "/a.Theirs/Get") is HANDLER
    assert found(table, "/a.Ours/Set") is None


def test_each_call_is_told_of_first_and_one_to_no_method_too():
    came = []
    table = CallTable(lambda _rpc, handler: handler, ["a.Ours"], lambda details: came.append(details.method))
    table.add_registered_method_handlers("a.Ours", {"Get": HANDLER})
    found(table, "/a.Ours/Get")
    found(table, "/a.Ours/Set")
    assert came == ["/a.Ours/Get", "/a.Ours/Set"]
