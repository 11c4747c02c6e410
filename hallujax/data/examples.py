"""`tf.Example`, the protocol buffer of every record: TFDS carries it too, in a package that imports much else."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "hallujax"


def _message(name: str, *fields: _Field, **options) -> descriptor_pb2.DescriptorProto:
    return descriptor_pb2.DescriptorProto(name=name, field=fields, **options)


def _field(name: str, number: int, kind, **options) -> _Field:
    if isinstance(kind, str):
        kind, options["type_name"] = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    return _Field(name=name, number=number, type=kind, **{"label": _Field.LABEL_OPTIONAL} | options)


def _values(name: str, kind) -> descriptor_pb2.DescriptorProto:
    return _message(name, _field("value", 1, kind, label=_Field.LABEL_REPEATED))


def _example_class():
    """https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/example/feature.proto"""
    entry = _message(
        "FeatureEntry",
        _field("key", 1, _Field.TYPE_STRING),
        _field("value", 2, "Feature"),
        options=descriptor_pb2.MessageOptions(map_entry=True),
    )
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}/example.proto",
        package=_PACKAGE,
        syntax="proto3",  # in which repeated numbers are packed
        message_type=[
            _values("BytesList", _Field.TYPE_BYTES),
            _values("FloatList", _Field.TYPE_FLOAT),
            _values("Int64List", _Field.TYPE_INT64),
            _message(
                "Feature",
                *(
                    _field(f"{kind}_list", number, f"{kind.title()}List", oneof_index=0)
                    for number, kind in enumerate(("bytes", "float", "int64"), 1)
                ),
                oneof_decl=[descriptor_pb2.OneofDescriptorProto(name="kind")],
            ),
            _message(
                "Features",
                _field("feature", 1, "Features.FeatureEntry", label=_Field.LABEL_REPEATED),
                nested_type=[entry],
            ),
            _message("Example", _field("features", 1, "Features")),
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


Example = _example_class()
