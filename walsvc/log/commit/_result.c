/* AppendResults, from the numbers that an Ack or a group has. */

#include "_ack.h"

static PyObject *append_result;  /* the type AppendResult */

/* Returns a new int, or the one of the call before: segment and sync_us are the same for a whole group. */
static PyObject *shared_number(int which, uint64_t number)
{
    static struct { uint64_t number; PyObject *object; } last[2];
    if (last[which].object == NULL || last[which].number != number) {
        PyObject *object = PyLong_FromUnsignedLongLong(number);
        if (object == NULL)
            return NULL;
        Py_XSETREF(last[which].object, object);
        last[which].number = number;
    }
    return Py_NewRef(last[which].object);
}

/* Returns a new AppendResult. It holds numbers only, so the collector need not know it. */
PyObject *new_result(const uint64_t numbers[5], int durable)
{
    PyTypeObject *type = (PyTypeObject *)append_result;
    PyObject *value = type->tp_alloc(type, 6);
    for (int i = 0; value != NULL && i < 6; i++) {
        PyObject *cell = i == 4   ? PyBool_FromLong(durable)
                         : i == 1 ? shared_number(0, numbers[1])
                         : i == 5 ? shared_number(1, numbers[4])
                                  : PyLong_FromUnsignedLongLong(numbers[i]);
        PyTuple_SET_ITEM(value, i, cell);
        if (cell == NULL)
            Py_CLEAR(value);
    }
    if (value != NULL)
        PyObject_GC_UnTrack(value);
    return value;
}

int result_import(void)
{
    PyObject *model = PyImport_ImportModule("walsvc.model");
    if (model != NULL)
        append_result = PyObject_GetAttrString(model, "AppendResult");
    Py_XDECREF(model);
    return PyErr_Occurred() ? -1 : 0;
}
