/* The bytes of a group, in C. Twins and specification: measure and columns in encoding.py and encode_group in walsvc.format.group.

   A payload is copied and its CRC is taken piece by piece, while the piece is still in the first cache. CRCs come from the package
   crc32c, through walsvc.checksum: the functions here call nothing else of Python once the arguments are checked. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { HEADER = 128, PIECE = 16 << 10 };  /* crc32c lets the GIL go from 32 KiB on, which costs more than it gives here */
enum { FLAGS, LOG_ID, TIMESTAMP = 8, RECORDS, PAYLOAD_BYTES, GROUP_BYTES = 13, PREVIOUS_CRC, NONCE, DURABLE_UNITS = 18, LAST_CRC, FIELDS };

static PyObject *crc32c, *array_type, *code_i, *code_h;

static unsigned char *put32(unsigned char *at, uint32_t number)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(number >> 8 * i);
    return at + 4;
}

static unsigned char *put64(unsigned char *at, uint64_t number)
{
    return put32(put32(at, (uint32_t)number), (uint32_t)(number >> 32));
}

/* Continue the CRC over these bytes. -1: an error is set. */
static int add_crc(uint32_t *crc, const unsigned char *bytes, Py_ssize_t length)
{
    PyObject *view = PyMemoryView_FromMemory((char *)bytes, length, PyBUF_READ);
    PyObject *before = *crc == 0 ? NULL : PyLong_FromUnsignedLong(*crc);
    PyObject *arguments[2] = {view, before}, *after = NULL;
    if (view != NULL && (before != NULL || *crc == 0))
        after = PyObject_Vectorcall(crc32c, arguments, before == NULL ? 1 : 2, NULL);
    Py_XDECREF(view);
    Py_XDECREF(before);
    if (after == NULL)
        return -1;
    *crc = (uint32_t)PyLong_AsUnsignedLongMask(after);
    Py_DECREF(after);
    return PyErr_Occurred() ? -1 : 0;
}

/* Where the next bytes of a group go, and from where on the CRC has not seen them. */
typedef struct {
    unsigned char *at, *unseen, *end;
    uint32_t crc;
} Area;

/* Copy bytes into the area; the CRC follows a whole piece at a time. -1: an error is set. */
static int add_bytes(Area *area, const char *bytes, Py_ssize_t length)
{
    if (length > area->end - area->at) {
        PyErr_SetString(PyExc_ValueError, "the group's parts are longer than the group");
        return -1;
    }
    while (length > 0) {
        Py_ssize_t part = length < PIECE ? length : PIECE;
        memcpy(area->at, bytes, (size_t)part);
        area->at += part;
        bytes += part;
        length -= part;
        if (area->at - area->unseen >= PIECE) {
            if (add_crc(&area->crc, area->unseen, area->at - area->unseen) < 0)
                return -1;
            area->unseen = area->at;
        }
    }
    return 0;
}

static int add_object(Area *area, PyObject *piece)
{
    if (PyBytes_CheckExact(piece))
        return add_bytes(area, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece));
    Py_buffer buffer;
    if (PyObject_GetBuffer(piece, &buffer, PyBUF_SIMPLE) < 0)
        return -1;
    int outcome = add_bytes(area, buffer.buf, buffer.len);
    PyBuffer_Release(&buffer);
    return outcome;
}

/* End the area: its CRC has seen everything. */
static int end_area(Area *area)
{
    int outcome = add_crc(&area->crc, area->unseen, area->at - area->unseen);
    area->unseen = area->at;
    return outcome;
}

/* Write the header; the bytes that its CRCs cover are in place. */
static int put_header(unsigned char *start, const uint64_t fields[FIELDS], const char *nonce, uint32_t payload_crc,
                      uint32_t rest_crc, uint32_t *header_crc)
{
    unsigned char *at = start;
    memcpy(at, "wGRP", 4);
    at = put32(at + 4, (uint32_t)fields[FLAGS]);
    for (int i = LOG_ID; i <= TIMESTAMP; i++)
        at = put64(at, fields[i]);
    for (int i = RECORDS; i <= PREVIOUS_CRC; i++)
        at = put32(at, (uint32_t)fields[i]);
    memcpy(at, nonce, 12);
    at = put32(put32(at + 12, payload_crc), rest_crc);
    at = put32(put32(at, (uint32_t)fields[DURABLE_UNITS]), (uint32_t)fields[LAST_CRC]);
    if (add_crc(header_crc, start, HEADER - 4) < 0)
        return -1;
    put32(at, *header_crc);
    return 0;
}

/* Read the header's numbers; its nonce is left out. -1: an error is set. */
static int read_fields(PyObject *header, uint64_t fields[FIELDS])
{
    for (int i = 0; i < FIELDS; i++) {
        fields[i] = i == NONCE ? 0 : PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(header, i));
        if (fields[i] == (uint64_t)-1 && PyErr_Occurred())
            return -1;
        if ((i == FLAGS || i >= RECORDS) && fields[i] > UINT32_MAX) {
            PyErr_SetString(PyExc_OverflowError, "a field of the group's header is too large");
            return -1;
        }
    }
    return 0;
}

/* Fill the whole of `view`. Returns 0 and the header's CRC, or -1 with an error set. */
static int encode(Py_buffer *view, PyObject *header, PyObject *payloads, PyObject *rest, uint32_t *header_crc)
{
    uint64_t fields[FIELDS];
    if (read_fields(header, fields) < 0)
        return -1;
    unsigned char *start = view->buf;
    if (view->len < HEADER || (uint64_t)view->len != fields[GROUP_BYTES] ||
        fields[PAYLOAD_BYTES] > (uint64_t)view->len - HEADER) {
        PyErr_SetString(PyExc_ValueError, "the view is not as long as the group");
        return -1;
    }
    Area area = {start + HEADER, start + HEADER, start + HEADER + fields[PAYLOAD_BYTES], 0};
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(payloads); i++)
        if (add_object(&area, PyList_GET_ITEM(payloads, i)) < 0)
            return -1;
    if (area.at != area.end) {
        PyErr_SetString(PyExc_ValueError, "payload_bytes is not the sum of the payloads");
        return -1;
    }
    if (end_area(&area) < 0)
        return -1;
    uint32_t payload_crc = area.crc;
    area.crc = 0;
    area.end = start + view->len;
    if (add_object(&area, rest) < 0)
        return -1;
    memset(area.at, 0, (size_t)(area.end - area.at));
    area.at = area.end;
    if (end_area(&area) < 0)
        return -1;
    *header_crc = 0;
    return put_header(start, fields, PyBytes_AS_STRING(PyTuple_GET_ITEM(header, NONCE)), payload_crc, area.crc, header_crc);
}

/* encode_group(view, header, payloads, rest): returns the header's CRC. */
static PyObject *encode_group(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 4 || !PyTuple_Check(args[1]) || PyTuple_GET_SIZE(args[1]) < FIELDS || !PyList_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "encode_group(view, header, payloads, rest)");
        return NULL;
    }
    PyObject *nonce = PyTuple_GET_ITEM(args[1], NONCE);
    if (!PyBytes_Check(nonce) || PyBytes_GET_SIZE(nonce) != 12) {
        PyErr_SetString(PyExc_TypeError, "the nonce has 12 bytes");
        return NULL;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(args[0], &view, PyBUF_WRITABLE) < 0)
        return NULL;
    uint32_t header_crc = 0;
    int outcome = encode(&view, args[1], args[2], args[3], &header_crc);
    PyBuffer_Release(&view);
    return outcome < 0 ? NULL : PyLong_FromUnsignedLong(header_crc);
}

/* measure(payloads): returns a new tuple of an array of their lengths, the sum, and the greatest; TypeError for what is not bytes. */
static PyObject *measure(PyObject *Py_UNUSED(module), PyObject *payloads)
{
    if (!PyList_CheckExact(payloads)) {
        PyErr_SetString(PyExc_TypeError, "measure(payloads)");
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(payloads), total = 0, longest = 0;
    PyObject *cells = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(uint32_t));
    if (cells == NULL)
        return NULL;
    uint32_t *cell = (uint32_t *)PyBytes_AS_STRING(cells);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *payload = PyList_GET_ITEM(payloads, i);
        if (!PyBytes_CheckExact(payload) || PyBytes_GET_SIZE(payload) > UINT32_MAX) {
            Py_DECREF(cells);
            PyErr_SetString(PyExc_TypeError, "payloads are bytes of less than 4 GiB");
            return NULL;
        }
        cell[i] = (uint32_t)PyBytes_GET_SIZE(payload);
        total += cell[i];
        longest = cell[i] > longest ? cell[i] : longest;
    }
    PyObject *arguments[2] = {code_i, cells};
    PyObject *lengths = PyObject_Vectorcall(array_type, arguments, 2, NULL);
    Py_DECREF(cells);
    return lengths == NULL ? NULL : Py_BuildValue("Nnn", lengths, total, longest);
}

/* One of the three columns of labels while it is made. */
typedef struct {
    PyObject *code;       /* of its array, borrowed */
    PyObject *cells;      /* owned bytes of `count` cells */
    uint32_t largest;     /* a label may be no larger */
    int used;             /* a label is not 0 */
} Column;

/* Put one record's label into a column. -1: an error is set. */
static int put_cell(Column *column, Py_ssize_t at, PyObject *label)
{
    unsigned long number = PyLong_AsUnsignedLong(label);
    if (number == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (number > column->largest) {
        PyErr_SetString(PyExc_OverflowError, "a label is too large");
        return -1;
    }
    if (column->code == code_h)
        ((uint16_t *)PyBytes_AS_STRING(column->cells))[at] = (uint16_t)number;
    else
        ((uint32_t *)PyBytes_AS_STRING(column->cells))[at] = (uint32_t)number;
    column->used |= number != 0;
    return 0;
}

/* Put the labels of all records into the columns. -1: an error is set. */
static int put_labels(Column columns[3], PyObject *labels, Py_ssize_t count)
{
    PyObject *key, *row;
    for (Py_ssize_t place = 0; PyDict_Next(labels, &place, &key, &row);) {
        Py_ssize_t at = PyLong_AsSsize_t(key);
        if (at == -1 && PyErr_Occurred())
            return -1;
        if (at < 0 || at >= count || !PyTuple_Check(row) || PyTuple_GET_SIZE(row) != 3) {
            PyErr_SetString(PyExc_ValueError, "labels of no record");
            return -1;
        }
        for (int i = 0; i < 3; i++)
            if (put_cell(&columns[i], at, PyTuple_GET_ITEM(row, i)) < 0)
                return -1;
    }
    return 0;
}

/* columns(labels, count): returns a new tuple of three: arrays of the records' types, topics and lengths of attributes; None where
   all are 0. `labels` maps the index of a record to a tuple of the three. */
static PyObject *columns(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t count = nargs == 2 && PyDict_CheckExact(args[0]) ? PyLong_AsSsize_t(args[1]) : -1;
    if (count < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "columns(labels, count)");
        return NULL;
    }
    Column made[3] = {{code_h, NULL, UINT16_MAX, 0}, {code_i, NULL, UINT32_MAX, 0}, {code_i, NULL, UINT32_MAX, 0}};
    int wrong = 0;
    for (int i = 0; i < 3 && !wrong; i++) {
        Py_ssize_t length = count * (made[i].code == code_h ? 2 : 4);
        if ((wrong = (made[i].cells = PyBytes_FromStringAndSize(NULL, length)) == NULL) == 0)
            memset(PyBytes_AS_STRING(made[i].cells), 0, (size_t)length);
    }
    wrong = wrong || put_labels(made, args[0], count) < 0;
    PyObject *answer = wrong ? NULL : PyTuple_New(3);
    for (int i = 0; i < 3 && answer != NULL; i++) {
        PyObject *arguments[2] = {made[i].code, made[i].cells};
        PyObject *column = made[i].used ? PyObject_Vectorcall(array_type, arguments, 2, NULL) : Py_NewRef(Py_None);
        PyTuple_SET_ITEM(answer, i, column);
        if (column == NULL)
            Py_CLEAR(answer);
    }
    for (int i = 0; i < 3; i++)
        Py_XDECREF(made[i].cells);
    return answer;
}

/* ---- the module */

static PyMethodDef functions[] = {
    {"encode_group", (PyCFunction)encode_group, METH_FASTCALL, "See walsvc.format.group.encode_group."},
    {"columns", (PyCFunction)columns, METH_FASTCALL, "See walsvc.log.commit.encoding.columns."},
    {"measure", measure, METH_O, "See walsvc.log.commit.encoding.measure."},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_encode", .m_doc = "The bytes of a group in C; see encoding.py.", .m_size = -1, .m_methods = functions};

PyMODINIT_FUNC PyInit__encode(void)
{
    PyObject *crc = PyImport_ImportModule("walsvc.checksum"), *array = PyImport_ImportModule("array");
    if (crc != NULL && array != NULL) {
        crc32c = PyObject_GetAttrString(crc, "crc32c");
        array_type = PyObject_GetAttrString(array, "array");
        code_i = PyUnicode_InternFromString("I");
        code_h = PyUnicode_InternFromString("H");
    }
    Py_XDECREF(crc);
    Py_XDECREF(array);
    return PyErr_Occurred() ? NULL : PyModule_Create(&definition);
}
